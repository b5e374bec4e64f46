//! JSON files of checkpoint folders.

use crate::{Error, Result};
use serde_json::Value;
use std::path::Path;

/// Reads a JSON file; `Null` if it does not exist.
pub fn read_json(file: &Path) -> Result<Value> {
    if !file.exists() {
        return Ok(Value::Null);
    }
    let text = std::fs::read_to_string(file).map_err(|e| Error::folder(file, e))?;
    serde_json::from_str(&text).map_err(|e| Error::folder(file, format!("invalid JSON: {e}")))
}
