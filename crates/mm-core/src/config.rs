//! Configs: TOML or JSON files, overrides `--set a.b=c`, and structs parsed from them with errors that name the field.

use crate::{Error, Result, options::field_error};
use serde::de::DeserializeOwned;
use std::path::Path;

/// Reads a TOML or JSON file, and applies overrides `a.b=c` (c as TOML, else as text).
///
/// # Errors
/// If the file cannot be read or parsed, or an override is malformed.
pub fn read(path: &Path, overrides: &[String]) -> Result<toml::Value> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    let mut value: toml::Value = if path.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(&text).map_err(|e| Error::file(path, format!("not valid JSON: {e}")))?
    } else {
        toml::from_str(&text).map_err(|e| Error::file(path, format!("not valid TOML: {e}")))?
    };
    for item in overrides {
        set(&mut value, item)?;
    }
    Ok(value)
}

/// Applies one override `a.b=c`.
///
/// # Errors
/// If it has no `=`, or leads through a value that is not a table.
pub fn set(value: &mut toml::Value, item: &str) -> Result<()> {
    let (key, text) =
        item.split_once('=').ok_or_else(|| Error::config("--set", item, "key=value, for instance train.epochs=5"))?;
    let new = toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut current = value;
    let mut parts = key.split('.').peekable();
    while let Some(part) = parts.next() {
        let table = current
            .as_table_mut()
            .ok_or_else(|| Error::config(key, "a value that is not a table", "a path through tables"))?;
        if parts.peek().is_none() {
            table.insert(part.to_owned(), new);
            return Ok(());
        }
        current = table.entry(part.to_owned()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    }
    Ok(())
}

/// Parses a struct from a value.
///
/// # Errors
/// If a field is unknown (the error suggests the nearest one), missing or of another type (the error names it).
pub fn parse<T: DeserializeOwned>(value: &toml::Value, field: &str) -> Result<T> {
    value.clone().try_into().map_err(|e: toml::de::Error| {
        // toml puts the path on a line of its own: "in `train.epochs`".
        let message = e.to_string();
        let path = message.lines().find_map(|l| l.trim().strip_prefix("in `")).map(|p| p.trim_end_matches('`'));
        field_error(field, path, e.message())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        epochs: u32,
    }
    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        train: Inner,
    }

    #[test]
    fn overrides_apply_and_errors_name_the_field() {
        let mut value: toml::Value = toml::from_str("[train]\nepochs = 3").unwrap();
        set(&mut value, "train.epochs=7").unwrap();
        assert_eq!(parse::<Outer>(&value, "").unwrap().train.epochs, 7);
        set(&mut value, "train.epochs=-7").unwrap();
        let text = parse::<Outer>(&value, "").unwrap_err().to_string();
        assert!(text.contains("train.epochs") && text.contains("-7"), "{text}");
        set(&mut value, "train.epohcs=7").unwrap();
        set(&mut value, "train.epochs=7").unwrap();
        let text = parse::<Outer>(&value, "").unwrap_err().to_string();
        assert!(text.contains("epohcs") && text.contains("did you mean `epochs`"), "{text}");
        assert!(set(&mut value, "novalue").is_err());
    }
}
