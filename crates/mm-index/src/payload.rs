//! The values of a payload that filters see.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::HashSet, fmt};

/// A JSON object: the fields of a row.
pub type Payload = Map<String, Value>;

/// A value that a filter compares. Integers and other numbers are compared with each other; nothing else is equal to a
/// value of another type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// True or false.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
    /// Text, compared by its bytes. Dates written as `2024-05-31` are in order.
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value:?}"),
            Self::Text(text) => write!(f, "\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    }
}

impl From<bool> for Scalar {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for Scalar {
    fn from(value: i64) -> Self {
        Self::Integer(value)
    }
}

impl From<f64> for Scalar {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// A place on earth: an object with `lat` and `lon` in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GeoPoint {
    /// Latitude, -90 to 90.
    pub lat: f64,
    /// Longitude, -180 to 180.
    pub lon: f64,
}

/// What filters see of a payload: values and places by the path of their field (`camera.lens` for nested objects). The
/// elements of a list are values of the field; null is no value. Integers beyond 64 bits with a sign are floats.
#[derive(Debug, Default, PartialEq)]
pub struct FieldValues {
    /// Values, in the order of the payload.
    pub values: Vec<(String, Scalar)>,
    /// Places.
    pub points: Vec<(String, GeoPoint)>,
    /// Fields without a value: null, empty lists and empty objects.
    pub empty: Vec<String>,
}

/// A value, so that equal ones are found: a whole number is the same as an integer and as a float.
#[derive(PartialEq, Eq, Hash)]
enum Key<'a> {
    Bool(bool),
    Integer(i64),
    Float(u64),
    Text(&'a str),
}

impl<'a> Key<'a> {
    fn of(value: &'a Scalar) -> Self {
        /// The first float beyond 64-bit integers.
        const LIMIT: f64 = 9_223_372_036_854_775_808.0;
        match value {
            Scalar::Bool(value) => Self::Bool(*value),
            Scalar::Integer(value) => Self::Integer(*value),
            Scalar::Float(value) if value.trunc() == *value && (-LIMIT..LIMIT).contains(value) => {
                Self::Integer(*value as i64)
            }
            Scalar::Float(value) => Self::Float(value.to_bits()),
            Scalar::Text(text) => Self::Text(text),
        }
    }
}

impl FieldValues {
    /// The values and places of a payload.
    pub fn of(payload: &Payload) -> Self {
        let mut found = Self::default();
        for (name, value) in payload {
            found.add(name, value);
        }
        found
    }

    /// The paths of all fields; one with several values comes several times.
    #[cfg(feature = "postgres")]
    pub(crate) fn paths(&self) -> impl Iterator<Item = &String> {
        let values = self.values.iter().map(|(path, _)| path);
        values.chain(self.points.iter().map(|(path, _)| path)).chain(&self.empty)
    }

    /// Values, each once for each field.
    pub(crate) fn distinct_values(&self) -> impl Iterator<Item = (&str, &Scalar)> {
        let mut seen = HashSet::new();
        let values = self.values.iter().map(|(path, value)| (path.as_str(), value));
        values.filter(move |(path, value)| seen.insert((*path, Key::of(value))))
    }

    /// Places, each once for each field.
    pub(crate) fn distinct_points(&self) -> impl Iterator<Item = (&str, GeoPoint)> {
        let mut seen = HashSet::new();
        // Zero has two signs, which are equal.
        let bits = |degrees: f64| (degrees + 0.0).to_bits();
        let points = self.points.iter().map(|(path, point)| (path.as_str(), *point));
        points.filter(move |(path, point)| seen.insert((*path, bits(point.lat), bits(point.lon))))
    }

    fn add(&mut self, path: &str, value: &Value) {
        let scalar = match value {
            Value::Null => return self.empty.push(path.to_owned()),
            Value::Bool(value) => Scalar::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Scalar::Integer(value),
                (None, Some(value)) => Scalar::Float(value),
                (None, None) => return,
            },
            Value::String(text) => Scalar::Text(text.clone()),
            Value::Array(list) if list.is_empty() => return self.empty.push(path.to_owned()),
            Value::Array(list) => return list.iter().for_each(|element| self.add(path, element)),
            Value::Object(object) if object.is_empty() => return self.empty.push(path.to_owned()),
            Value::Object(object) => {
                let degrees = |name: &str| object.get(name).and_then(Value::as_f64);
                if let (Some(lat), Some(lon)) = (degrees("lat"), degrees("lon")) {
                    self.points.push((path.to_owned(), GeoPoint { lat, lon }));
                }
                return object.iter().for_each(|(name, value)| self.add(&format!("{path}.{name}"), value));
            }
        };
        self.values.push((path.to_owned(), scalar));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_objects_and_places_are_flattened() {
        let payload = json!({
            "year": 2001, "size": 1.5, "tags": ["a", ["b", null]], "camera": {"lens": true},
            "place": {"lat": 48.1, "lon": 11.5}, "none": null, "large": u64::MAX, "list": [], "object": {"empty": {}}
        });
        let FieldValues { values, points, empty } = FieldValues::of(payload.as_object().unwrap());
        let found: Vec<String> = values.iter().map(|(path, value)| format!("{path}={value}")).collect();
        let expected = [
            "camera.lens=true",
            "large=1.8446744073709552e19",
            "place.lat=48.1",
            "place.lon=11.5",
            "size=1.5",
            "tags=\"a\"",
            "tags=\"b\"",
            "year=2001",
        ];
        let mut sorted = found.clone();
        sorted.sort();
        assert_eq!(sorted, expected);
        assert_eq!(points, [("place".to_owned(), GeoPoint { lat: 48.1, lon: 11.5 })]);
        let mut empty = empty;
        empty.sort();
        assert_eq!(empty, ["list", "none", "object.empty", "tags"]);
    }

    #[test]
    fn equal_values_of_a_field_are_one() {
        let place = json!([{"lat": 0.0, "lon": 1}, {"lat": -0.0, "lon": 1.0}]);
        let payload = json!({"a": [1, 1.0, "1", 1.5, true, 1], "b": 1, "place": place});
        let fields = FieldValues::of(payload.as_object().unwrap());
        let found: Vec<String> = fields.distinct_values().map(|(path, value)| format!("{path}={value}")).collect();
        let of_points = ["place.lat=0.0", "place.lon=1"];
        assert_eq!(found, [&["a=1", "a=\"1\"", "a=1.5", "a=true", "b=1"][..], &of_points].concat());
        assert_eq!(fields.distinct_points().count(), 1);
    }
}
