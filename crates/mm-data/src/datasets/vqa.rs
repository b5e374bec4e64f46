//! easy-VQA: drawn shapes, questions about them, one-word answers. The split is the package's own.

use super::{absolute, walk};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

pub(super) fn rows(folder: &Path) -> Result<Vec<Value>> {
    let files = walk(folder)?;
    let mut rows = Vec::new();
    for file in files.iter().filter(|f| f.file_name().is_some_and(|n| n == "questions.json")) {
        let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
        let table: Vec<(String, String, u64)> = serde_json::from_str(&text)
            .map_err(|e| Error::file(file, format!("not a list of [question, answer, picture]: {e}")))?;
        let side = file.parent().unwrap_or(folder);
        let split = side.file_name().and_then(|n| n.to_str()).unwrap_or("train").to_owned();
        let pictures = absolute(&side.join("images"))?;
        for (number, (question, answer, picture)) in table.into_iter().enumerate() {
            rows.push(json!({
                "id": format!("{split}-{number}"), "group": format!("{split}-{picture}"), "split": split,
                "image": format!("{pictures}/{picture}.png"), "text": question, "label": answer,
            }));
        }
    }
    if rows.is_empty() {
        return Err(Error::file(folder, "no questions here; wanted the folder that the package easy-vqa unpacks to"));
    }
    Ok(rows)
}
