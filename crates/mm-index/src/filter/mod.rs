//! Conditions on the payload of rows, and their text form.

mod compare;
mod lexer;
mod parser;
mod valid;

use crate::payload::{FieldValues, GeoPoint, Payload, Scalar};
use compare::{compare, is_between, is_in_box};
use std::{cmp::Ordering, fmt, ops::Bound};

/// A condition on the payload of a row. A field is a path (`camera.lens`); where its value is a list, one element has to
/// meet the condition. A field that a row lacks meets none but a negation.
///
/// ```
/// use mm_index::Filter;
/// let filter = Filter::parse(r#"year > 2000 and (kind in ("bird", "cat") or not exists seen)"#)?;
/// assert_eq!(filter.to_string(), r#"year > 2000 and (kind in ("bird", "cat") or not exists seen)"#);
/// let error = Filter::parse("year > and kind = 1").unwrap_err();
/// assert_eq!(error.column(), 8);
/// # Ok::<(), mm_index::FilterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Filter {
    /// The field has this value.
    Equal {
        /// The path of the field.
        field: String,
        /// The value.
        value: Scalar,
    },
    /// The field has one of these values.
    In {
        /// The path of the field.
        field: String,
        /// The values.
        values: Vec<Scalar>,
    },
    /// The field has a number (or a text) between these.
    Range {
        /// The path of the field.
        field: String,
        /// The lower end.
        lower: Bound<Scalar>,
        /// The upper end.
        upper: Bound<Scalar>,
    },
    /// The field has a place (an object with `lat` and `lon`) in this box, edges included. Where `west` is greater than
    /// `east`, the box crosses the 180th meridian.
    GeoBox {
        /// The path of the field.
        field: String,
        /// The south-western corner.
        south_west: GeoPoint,
        /// The north-eastern corner.
        north_east: GeoPoint,
    },
    /// The field has a value; of an object, one of its fields.
    Exists {
        /// The path of the field.
        field: String,
    },
    /// All of these.
    And(Vec<Filter>),
    /// One of these.
    Or(Vec<Filter>),
    /// The row does not meet this.
    Not(Box<Filter>),
}

/// Why a filter cannot be parsed, with its position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    text: String,
    /// Characters before the position.
    position: usize,
    found: String,
    expected: String,
}

impl FilterError {
    /// The column of the problem, counted in characters from 1.
    pub fn column(&self) -> usize {
        self.position + 1
    }
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, position, found, expected } = self;
        write!(f, "filter, column {}: found {found}, expected {expected}\n  {text}\n  {:position$}^", self.column(), "")
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Parses the text form:
    ///
    /// - `field = value`, `!=`, `<`, `<=`, `>`, `>=`; `field between 1 and 9` (both included)
    /// - `field in (value, …)`, `field not in (value, …)`
    /// - `field in box(south, west, north, east)` in degrees
    /// - `exists field`
    /// - `not`, `and`, `or` (in this order of precedence), and parentheses
    ///
    /// Values are numbers, `"text"` or `'text'`, `true` and `false`; a field with spaces is written `` `my field` ``.
    /// `a != b` is `not a = b`: a row without the field meets it.
    ///
    /// # Errors
    /// With the position of what cannot be parsed.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        parser::parse(text)
    }

    /// Whether a payload meets the condition, by comparing its values one by one.
    pub fn matches(&self, payload: &Payload) -> bool {
        self.matches_values(&FieldValues::of(payload))
    }

    fn matches_values(&self, fields: &FieldValues) -> bool {
        let values = |field: &String| {
            let field = field.clone();
            fields.values.iter().filter(move |(path, _)| *path == field).map(|(_, value)| value)
        };
        let mut points = fields.points.iter();
        match self {
            Self::Equal { field, value } => values(field).any(|v| compare(v, value) == Some(Ordering::Equal)),
            Self::In { field, values: list } => {
                values(field).any(|v| list.iter().any(|wanted| compare(v, wanted) == Some(Ordering::Equal)))
            }
            Self::Range { field, lower, upper } => values(field).any(|v| is_between(v, lower, upper)),
            Self::GeoBox { field, south_west, north_east } => {
                points.any(|(path, point)| path == field && is_in_box(*point, *south_west, *north_east))
            }
            Self::Exists { field } => fields.values.iter().any(|(path, _)| is_within(path, field)),
            Self::And(all) => all.iter().all(|filter| filter.matches_values(fields)),
            Self::Or(any) => any.iter().any(|filter| filter.matches_values(fields)),
            Self::Not(filter) => !filter.matches_values(fields),
        }
    }
}

/// Whether a path is that of a field, or of a field inside of it.
pub(crate) fn is_within(path: &str, field: &str) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A field as it is written in a filter.
fn quoted(field: &str) -> String {
    let plain = lexer::is_plain_field(field);
    if plain { field.to_owned() } else { format!("`{field}`") }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal { field, value } => write!(f, "{} = {value}", quoted(field)),
            Self::In { field, values } => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "{} in ({})", quoted(field), values.join(", "))
            }
            Self::Range { field, lower, upper } => write_range(f, &quoted(field), lower, upper),
            Self::GeoBox { field, south_west: a, north_east: b } => {
                write!(f, "{} in box({:?}, {:?}, {:?}, {:?})", quoted(field), a.lat, a.lon, b.lat, b.lon)
            }
            Self::Exists { field } => write!(f, "exists {}", quoted(field)),
            Self::And(all) => write_joined(f, all, " and "),
            Self::Or(any) => write_joined(f, any, " or "),
            Self::Not(filter) => match filter.as_ref() {
                Self::And(_) | Self::Or(_) | Self::Range { .. } => write!(f, "not ({filter})"),
                simple => write!(f, "not {simple}"),
            },
        }
    }
}

fn write_joined(f: &mut fmt::Formatter<'_>, parts: &[Filter], word: &str) -> fmt::Result {
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(word)?;
        }
        match part {
            Filter::And(_) | Filter::Or(_) => write!(f, "({part})")?,
            simple => write!(f, "{simple}")?,
        }
    }
    Ok(())
}

fn write_range(f: &mut fmt::Formatter<'_>, field: &str, lower: &Bound<Scalar>, upper: &Bound<Scalar>) -> fmt::Result {
    if let (Bound::Included(lower), Bound::Included(upper)) = (lower, upper) {
        return write!(f, "{field} between {lower} and {upper}");
    }
    let end = |bound: &Bound<Scalar>, sign: &str| match bound {
        Bound::Included(end) => Some(format!("{field} {sign}= {end}")),
        Bound::Excluded(end) => Some(format!("{field} {sign} {end}")),
        Bound::Unbounded => None,
    };
    let ends: Vec<String> = [end(lower, ">"), end(upper, "<")].into_iter().flatten().collect();
    f.write_str(&ends.join(" and "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn selected(filter: &str) -> Vec<usize> {
        let rows = [
            json!({"year": 1999, "kind": "bird", "tags": ["red", "old"], "place": {"lat": 48.1, "lon": 11.5}}),
            json!({"year": 2001.5, "kind": "cat", "seen": true, "place": {"lat": -17.0, "lon": 179.0}}),
            json!({"year": "2001", "kind": null, "my field": 1}),
        ];
        let filter = Filter::parse(filter).unwrap();
        (0..rows.len()).filter(|row| filter.matches(rows[*row].as_object().unwrap())).collect()
    }

    #[test]
    fn conditions_select_the_rows_that_meet_them() {
        assert_eq!(selected("year > 1999"), [1]);
        assert_eq!(selected("year >= 1999"), [0, 1]);
        assert_eq!(selected("year between 1999 and 2001.5"), [0, 1]);
        assert_eq!(selected("year = '2001'"), [2]);
        assert_eq!(selected("year < 'a'"), [2]);
        assert_eq!(selected("kind != \"bird\""), [1, 2]);
        assert_eq!(selected("tags in ('old', 'new')"), [0]);
        assert_eq!(selected("tags not in ('old', 'new')"), [1, 2]);
        assert_eq!(selected("exists kind and not seen = true"), [0]);
        assert_eq!(selected("seen = true or `my field` = 1"), [1, 2]);
        assert_eq!(selected("place in box(48, 11, 49, 12)"), [0]);
        assert_eq!(selected("place in box(-20, 170, 50, -170)"), [1]);
        assert_eq!(selected("exists place.lat"), [0, 1]);
        assert_eq!(selected("exists place"), [0, 1]);
        assert_eq!(selected("exists plac"), Vec::<usize>::new());
    }
}
