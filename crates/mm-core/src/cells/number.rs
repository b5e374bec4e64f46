//! Texts as numbers.

use super::date::DateOrder;
use serde::{Deserialize, Serialize};

/// How the texts of a column are written as numbers.
///
/// ```
/// use mm_core::cells::NumberFormat;
/// let format = NumberFormat::infer(["$1,200.50", "$3.00"]).unwrap_or_default();
/// assert_eq!(format.parse("$1,200.50"), Some(1200.5));
/// assert_eq!(NumberFormat::infer(["12 %", "3,5 %"]).and_then(|f| f.parse("3,5 %")), Some(3.5));
/// assert_eq!(NumberFormat::infer(["2024-01-31"]).and_then(|f| f.parse("1970-01-02")), Some(1.0));
/// assert_eq!(NumberFormat::infer(["red", "green"]), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NumberFormat {
    /// As programs write them: `-1.5e3`.
    #[default]
    Plain,
    /// With a decimal point, and possibly commas, spaces or apostrophes between thousands, a currency or a percent
    /// sign: `$1,200.50`, `12 %`.
    DecimalPoint,
    /// With a decimal comma, and possibly points or spaces between thousands, a currency or a percent sign:
    /// `1.200,50 €`.
    DecimalComma,
    /// Dates `2024-01-31`, with or without a time: days since 1970-01-01.
    YearMonthDay,
    /// Dates `01/31/2024`.
    MonthDayYear,
    /// Dates `31.01.2024` or `31/01/2024`.
    DayMonthYear,
}

/// The formats, in the order in which they are tried. With `1/2/2024` alone the month is first, as in pandas.
const FORMATS: [NumberFormat; 6] = [
    NumberFormat::Plain,
    NumberFormat::DecimalPoint,
    NumberFormat::DecimalComma,
    NumberFormat::YearMonthDay,
    NumberFormat::MonthDayYear,
    NumberFormat::DayMonthYear,
];

/// One of twenty cells may be something else.
const MIN_SHARE: (usize, usize) = (19, 20);

impl NumberFormat {
    /// The first format in which at least 95% of the texts (which hold no missing values) are numbers, preferring one
    /// in which more are; `None` where there is none or no text.
    pub fn infer<'a>(texts: impl IntoIterator<Item = &'a str> + Clone) -> Option<Self> {
        let total = texts.clone().into_iter().count();
        let count = |format: Self| texts.clone().into_iter().filter(|t| format.parse(t).is_some()).count();
        let mut best: Option<(Self, usize)> = None;
        for format in FORMATS {
            let found = count(format);
            if found == total && total > 0 {
                return Some(format);
            }
            if found * MIN_SHARE.1 >= total * MIN_SHARE.0 && total > 0 && best.is_none_or(|(_, most)| found > most) {
                best = Some((format, found));
            }
        }
        best.map(|(format, _)| format)
    }

    /// The finite number in a text.
    pub fn parse(self, text: &str) -> Option<f64> {
        let found = match self {
            Self::Plain => text.trim().parse().ok(),
            Self::DecimalPoint => {
                let plain = || text.trim().parse().ok();
                written(text, '.', &[',', ' ', '\'', '\u{a0}', '\u{202f}']).or_else(plain)
            }
            Self::DecimalComma => written(text, ',', &['.', ' ', '\'', '\u{a0}', '\u{202f}']),
            Self::YearMonthDay => DateOrder::YearMonthDay.parse(text),
            Self::MonthDayYear => DateOrder::MonthDayYear.parse(text),
            Self::DayMonthYear => DateOrder::DayMonthYear.parse(text),
        };
        found.filter(|v: &f64| v.is_finite())
    }

    /// Whether the numbers are days.
    pub fn is_date(self) -> bool {
        matches!(self, Self::YearMonthDay | Self::MonthDayYear | Self::DayMonthYear)
    }

    /// What the texts look like, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Plain => "numbers",
            Self::DecimalPoint => "numbers with signs or thousands separators",
            Self::DecimalComma => "numbers with a decimal comma",
            Self::YearMonthDay => "dates (year, month, day), as days",
            Self::MonthDayYear => "dates (month, day, year), as days",
            Self::DayMonthYear => "dates (day, month, year), as days",
        }
    }
}

/// Signs and codes of currencies, and percent, that may stand before or behind a number.
const SIGNS: [&str; 18] =
    ["$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₫", "₪", "%", "USD", "EUR", "GBP", "JPY", "CHF", "INR", "CNY"];

/// A number with this decimal separator, separators between thousands, and a sign of [`SIGNS`]; an amount in
/// parentheses is negative.
fn written(text: &str, decimal: char, thousands: &[char]) -> Option<f64> {
    let mut text = text.trim();
    let is_negated = text.starts_with('(') && text.ends_with(')');
    if is_negated {
        text = text.strip_prefix('(')?.strip_suffix(')')?.trim();
    }
    let (is_negative, mut text) = match text.strip_prefix(['-', '−']) {
        Some(rest) => (true, rest.trim_start()),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    for sign in SIGNS {
        let inner = text.strip_prefix(sign).or_else(|| text.strip_suffix(sign));
        if let Some(inner) = inner {
            text = inner.trim();
            break;
        }
    }
    let (is_negative, text) = match text.strip_prefix(['-', '−']) {
        Some(rest) => (!is_negative, rest),
        None => (is_negative, text),
    };
    let (whole, fraction) = text.split_once(decimal).unwrap_or((text, ""));
    let is_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let whole = if let Some(separator) = whole.chars().find(|c| thousands.contains(c)) {
        let mut groups = whole.split(separator);
        let first = groups.next()?;
        // `0,123` is no number of thousands.
        let is_grouped = (1..=3).contains(&first.len()) && !first.starts_with('0') && is_digits(first);
        if !is_grouped || !groups.all(|g| g.len() == 3 && is_digits(g)) {
            return None;
        }
        whole.replace(separator, "")
    } else {
        whole.to_owned()
    };
    if !is_digits(&whole) || !is_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let value: f64 = format!("{whole}.{fraction}0").parse().ok()?;
    Some(if is_negative == is_negated { value } else { -value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_inferred_from_the_whole_column() {
        let infer = |texts: &[&str]| NumberFormat::infer(texts.iter().copied());
        assert_eq!(infer(&["1", "-2.5e3"]), Some(NumberFormat::Plain));
        assert_eq!(infer(&["1,234", "12,345"]), Some(NumberFormat::DecimalPoint));
        assert_eq!(infer(&["1,234", "12,5"]), Some(NumberFormat::DecimalComma));
        assert_eq!(infer(&["0,123", "1,234"]), Some(NumberFormat::DecimalComma));
        assert_eq!(infer(&["1.234.567,5 €", "3 €"]), Some(NumberFormat::DecimalComma));
        assert_eq!(infer(&["1/2/2024", "3/4/2024"]), Some(NumberFormat::MonthDayYear));
        assert_eq!(infer(&["1/2/2024", "13/4/2024"]), Some(NumberFormat::DayMonthYear));
        assert_eq!(infer(&["192.168.0.1", "10.0.0.1"]), None);
        assert_eq!(infer(&["a", "1"]), None);
        assert_eq!(infer(&[]), None);
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let point = |text| NumberFormat::DecimalPoint.parse(text);
        assert_eq!(point("$1,234.50"), Some(1234.5));
        assert_eq!(point("-£3"), Some(-3.0));
        assert_eq!(point("$-3"), Some(-3.0));
        assert_eq!(point("(1,000)"), Some(-1000.0));
        assert_eq!(point("12.5%"), Some(12.5));
        assert_eq!(point("1 234 567"), Some(1_234_567.0));
        assert_eq!(point("1'000 CHF"), Some(1000.0));
        assert_eq!(point("1,23"), None);
        assert_eq!((point("$"), point("1e3")), (None, Some(1000.0)));
        assert_eq!(NumberFormat::DecimalComma.parse("1.200,50 €"), Some(1200.5));
        assert_eq!(NumberFormat::Plain.parse("inf"), None);
    }
}
