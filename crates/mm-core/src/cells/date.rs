//! Dates and times as days.

use serde::{Deserialize, Serialize};

/// The order of day, month and year in a date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DateOrder {
    YearMonthDay,
    MonthDayYear,
    DayMonthYear,
}

/// Days since 1970-01-01 of a date in the Gregorian calendar; `None` where there is no such day.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 => 28 + i64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=length).contains(&day) || !(1..=9999).contains(&year) {
        return None;
    }
    // Years from March on, so that the leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + (153 * month + 2) / 5 + day - 1 - 719_468)
}

fn digits(text: &str, lengths: std::ops::RangeInclusive<usize>) -> Option<i64> {
    (lengths.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// The fraction of a day of a time: `12:30`, `12:30:05`, `12:30:05.25`, with `Z` or an offset such as `+02:00`.
fn day_fraction(text: &str) -> Option<f64> {
    let text = text.trim();
    let (clock, offset) = if let Some(clock) = text.strip_suffix(['Z', 'z']) {
        (clock, 0.0)
    } else if let Some(at) = text.rfind(['+', '-']) {
        let (clock, offset) = text.split_at(at);
        let (sign, offset) = (if offset.starts_with('-') { -1.0 } else { 1.0 }, &offset[1..]);
        let (hours, minutes) = match offset.split_once(':') {
            Some((hours, minutes)) => (digits(hours, 2..=2)?, digits(minutes, 2..=2)?),
            None if offset.len() == 4 => (digits(offset.get(..2)?, 2..=2)?, digits(offset.get(2..)?, 2..=2)?),
            None => (digits(offset, 2..=2)?, 0),
        };
        (clock, sign * (hours as f64 + minutes as f64 / 60.0))
    } else {
        (text, 0.0)
    };
    let mut parts = clock.trim().split(':');
    let hours = digits(parts.next()?, 1..=2).filter(|h| *h < 24)?;
    let minutes = digits(parts.next()?, 2..=2).filter(|m| *m < 60)?;
    let seconds = match parts.next() {
        Some(text) if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => text.parse::<f64>().ok()?,
        Some(_) => return None,
        None => 0.0,
    };
    (parts.next().is_none() && seconds < 61.0)
        .then_some((hours as f64 - offset + (minutes as f64 + seconds / 60.0) / 60.0) / 24.0)
}

impl DateOrder {
    /// Days since 1970-01-01 of a date (`2024-01-31`, `2024/01/31`, `01/31/2024`, `31.01.2024`), with or without a
    /// time.
    pub(super) fn parse(self, text: &str) -> Option<f64> {
        let text = text.trim();
        let (date, time) = match text.find(['T', ' ']) {
            Some(at) => (&text[..at], &text[at + 1..]),
            None => (text, ""),
        };
        let separator = date.chars().find(|c| ['-', '/', '.'].contains(c))?;
        let mut parts = date.split(separator);
        let (a, b, c) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (year, month, day) = match self {
            Self::YearMonthDay => (a, b, c),
            Self::MonthDayYear => (c, a, b),
            Self::DayMonthYear => (c, b, a),
        };
        let days = days(digits(year, 4..=4)?, digits(month, 1..=2)?, digits(day, 1..=2)?)?;
        Some(days as f64 + if time.is_empty() { 0.0 } else { day_fraction(time)? })
    }
}

#[cfg(test)]
mod tests {
    use super::DateOrder::{DayMonthYear, MonthDayYear, YearMonthDay};

    #[test]
    fn dates_are_days_since_1970_as_python_counts_them() {
        for (order, text, expected) in [
            (YearMonthDay, "1970-01-01", Some(0.0)),
            (YearMonthDay, "2024-02-29", Some(19_782.0)),
            (YearMonthDay, "2023-02-29", None),
            (YearMonthDay, "1900-03-01 12:00:00", Some(-25_507.5)),
            (YearMonthDay, "2024-01-31T06:00:00Z", Some(19_753.25)),
            (YearMonthDay, "2024-01-31 06:00:00 +06:00", Some(19_753.0)),
            (YearMonthDay, "2024-01-31T06:00:00.5-0600", Some(19_753.5 + 0.5 / 86_400.0)),
            (MonthDayYear, "1/31/2024", Some(19_753.0)),
            (DayMonthYear, "31.01.2024", Some(19_753.0)),
            (DayMonthYear, "1/31/2024", None),
            (YearMonthDay, "2024-01-31 noon", None),
            (YearMonthDay, "3.14", None),
        ] {
            let found = order.parse(text);
            let is_equal = match (found, expected) {
                (Some(a), Some(b)) => (a - b).abs() < 1e-9,
                (a, b) => a == b,
            };
            assert!(is_equal, "{text}: found {found:?}, expected {expected:?}");
        }
    }
}
