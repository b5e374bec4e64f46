//! Structs from JSON values, with errors that name the field.

use crate::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Parses a struct of settings from a table of options; `field` is the table's dotted path.
///
/// ```
/// #[derive(Debug, serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Options {
///     num_heads: i64,
/// }
/// let table = |json: &str| serde_json::from_str(json).unwrap();
/// assert_eq!(mm_core::parse_options::<Options>(&table(r#"{"num_heads": 4}"#), "fusion.operator")?.num_heads, 4);
/// let error = mm_core::parse_options::<Options>(&table(r#"{"num_head": 4}"#), "fusion.operator").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "fusion.operator.num_head: found unknown field `num_head`, expected a known field: did you mean `num_heads`?"
/// );
/// # Ok::<(), mm_core::Error>(())
/// ```
///
/// # Errors
/// If a field is unknown (the error suggests the nearest one), missing or of another type (the error names it).
pub fn parse_options<T: DeserializeOwned>(options: &Map<String, Value>, field: &str) -> Result<T> {
    serde_path_to_error::deserialize(Value::Object(options.clone())).map_err(|error| {
        let path = error.path().to_string();
        let path = (path != ".").then_some(path);
        field_error(field, path.as_deref(), &error.into_inner().to_string())
    })
}

/// What serde says about a value, as an error of its field: `field`, and the path below it.
pub(crate) fn field_error(field: &str, path: Option<&str>, text: &str) -> Error {
    let at = match (field, path) {
        ("", None) => "the configuration".to_owned(),
        ("", Some(path)) => path.to_owned(),
        (field, None) => field.to_owned(),
        (field, Some(path)) => format!("{field}.{path}"),
    };
    let Some(rest) = text.strip_prefix("unknown field `") else {
        return Error::config(at, text, "a value of the right type");
    };
    // "unknown field `a`, expected one of `b`, `c`"
    let mut quoted = rest.split('`');
    let name = quoted.next().unwrap_or_default();
    let known: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
    let expected = format!("a known field{}", crate::error::hint(name, known));
    Error::config(at, format!("unknown field `{name}`"), expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Options {
        layers: Layers,
        rate: f64,
    }

    #[derive(Debug, Default, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Layers {
        num: u32,
    }

    impl Default for Options {
        fn default() -> Self {
            Self { layers: Layers::default(), rate: 0.5 }
        }
    }

    #[test]
    fn errors_name_the_nested_field() {
        let parse = |json: &str| parse_options::<Options>(&serde_json::from_str(json).unwrap(), "operator");
        assert!((parse(r#"{"rate": 1}"#).unwrap().rate - 1.0).abs() < 1e-12);
        let error = |json: &str| parse(json).unwrap_err().to_string();
        assert_eq!(
            error(r#"{"layers": {"num": "two"}}"#),
            "operator.layers.num: found invalid type: string \"two\", expected u32, expected a value of the right type"
        );
        assert!(error(r#"{"layers": {"mun": 2}}"#).starts_with("operator.layers.mun: found unknown field `mun`"));
        assert!(error(r#"{"layers": {}}"#).starts_with("operator.layers: found missing field `num`"));
    }
}
