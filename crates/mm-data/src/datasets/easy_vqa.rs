//! easy-VQA: drawn shapes, questions about them, one-word answers. The split is the package's own.

use super::{absolute, walk};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

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

const SHAPES: [&str; 3] = ["circle", "rectangle", "triangle"];

/// The same rows split by what is drawn: each colour and each shape is learned, but some pairs of them are seen in the test alone. The package's
/// own test pictures of pairs that are learned become the validation side.
pub(super) fn unseen(folder: &Path) -> Result<Vec<Value>> {
    let mut rows = rows(folder)?;
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let mut drawn: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
    for row in &rows {
        let (group, answer) = (text(row, "group"), text(row, "label"));
        match answer.as_str() {
            "yes" | "no" => {}
            shape if SHAPES.contains(&shape) => drawn.entry(group).or_default()[1] = Some(answer),
            _ => drawn.entry(group).or_default()[0] = Some(answer),
        }
    }
    let colours: BTreeSet<&String> = drawn.values().filter_map(|d| d[0].as_ref()).collect();
    let colours: Vec<String> = colours.into_iter().cloned().collect();
    let held = |pair: &[Option<String>; 2]| -> Option<bool> {
        let colour = colours.iter().position(|c| Some(c) == pair[0].as_ref())?;
        let shape = SHAPES.iter().position(|s| Some(*s) == pair[1].as_deref())?;
        // One pair in seven; a colour has three shapes, so none loses all of them.
        Some((3 * colour + shape).is_multiple_of(7))
    };
    rows.retain_mut(|row| {
        // Pictures of which the questions do not tell both are of no use here.
        let Some(held) = drawn.get(&text(row, "group")).and_then(held) else { return false };
        row["split"] = match (held, text(row, "split").as_str()) {
            (true, _) => "test".into(),
            (false, "train") => "train".into(),
            (false, _) => "valid".into(),
        };
        true
    });
    Ok(rows)
}
