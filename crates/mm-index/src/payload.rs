//! The values of a payload that filters see.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;

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
/// elements of a list are values of the field; null is no value.
#[derive(Debug, Default, PartialEq)]
pub struct FieldValues {
    /// Values, in the order of the payload.
    pub values: Vec<(String, Scalar)>,
    /// Places.
    pub points: Vec<(String, GeoPoint)>,
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

    fn add(&mut self, path: &str, value: &Value) {
        let scalar = match value {
            Value::Null => return,
            Value::Bool(value) => Scalar::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(value), _) => Scalar::Integer(value),
                (None, Some(value)) => Scalar::Float(value),
                (None, None) => return,
            },
            Value::String(text) => Scalar::Text(text.clone()),
            Value::Array(list) => return list.iter().for_each(|element| self.add(path, element)),
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
            "place": {"lat": 48.1, "lon": 11.5}, "none": null, "large": u64::MAX
        });
        let FieldValues { values, points } = FieldValues::of(payload.as_object().unwrap());
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
    }
}
