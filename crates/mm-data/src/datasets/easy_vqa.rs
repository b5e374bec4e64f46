//! easy-VQA: images of colored shapes, questions about them, one-word answers.

use super::{DatasetReader, absolute, walk, write_manifest};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

pub(super) const READER: DatasetReader = DatasetReader {
    name: "easy-vqa",
    description: "images of colored shapes with questions and answers (PyPI: easy-vqa)",
    prepare: |folder, manifest| write_manifest(manifest, &rows(folder)?),
};

pub(super) const UNSEEN: DatasetReader = DatasetReader {
    name: "easy-vqa-unseen",
    description: "easy-vqa with a test split of combinations of color and shape that training does not contain",
    prepare: |folder, manifest| write_manifest(manifest, &unseen(folder)?),
};

/// The rows, split as in the package.
fn rows(folder: &Path) -> Result<Vec<Value>> {
    let files = walk(folder)?;
    let mut rows = Vec::new();
    for file in files.iter().filter(|f| f.file_name().is_some_and(|n| n == "questions.json")) {
        let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
        let table: Vec<(String, String, u64)> = serde_json::from_str(&text)
            .map_err(|e| Error::file(file, format!("not a list of [question, answer, image]: {e}")))?;
        let parent = file.parent().unwrap_or(folder);
        let split = parent.file_name().and_then(|n| n.to_str()).unwrap_or("train").to_owned();
        let images = absolute(&parent.join("images"))?;
        for (number, (question, answer, image)) in table.into_iter().enumerate() {
            rows.push(json!({
                "id": format!("{split}-{number}"), "group": format!("{split}-{image}"), "split": split,
                "image": format!("{images}/{image}.png"), "text": question, "label": answer,
            }));
        }
    }
    if rows.is_empty() {
        return Err(Error::file(folder, "found no questions.json, expected the unpacked package easy-vqa"));
    }
    Ok(rows)
}

const SHAPES: [&str; 3] = ["circle", "rectangle", "triangle"];

/// The rows, split by combination of color and shape: training contains each color and each shape, but some
/// combinations occur only in the test split. The package's test images of the other combinations become the validation
/// split.
fn unseen(folder: &Path) -> Result<Vec<Value>> {
    let mut rows = rows(folder)?;
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let mut combinations: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
    for row in &rows {
        let (group, answer) = (text(row, "group"), text(row, "label"));
        match answer.as_str() {
            "yes" | "no" => {}
            shape if SHAPES.contains(&shape) => combinations.entry(group).or_default()[1] = Some(answer),
            _ => combinations.entry(group).or_default()[0] = Some(answer),
        }
    }
    let colors: BTreeSet<&String> = combinations.values().filter_map(|d| d[0].as_ref()).collect();
    let colors: Vec<String> = colors.into_iter().cloned().collect();
    let is_held_out = |pair: &[Option<String>; 2]| -> Option<bool> {
        let color = colors.iter().position(|c| Some(c) == pair[0].as_ref())?;
        let shape = SHAPES.iter().position(|s| Some(*s) == pair[1].as_deref())?;
        // One combination in seven; a color has three shapes, so no color loses all of them.
        Some((3 * color + shape).is_multiple_of(7))
    };
    rows.retain_mut(|row| {
        // Images whose questions do not state both the color and the shape are dropped.
        let Some(held_out) = combinations.get(&text(row, "group")).and_then(is_held_out) else { return false };
        row["split"] = match (held_out, text(row, "split").as_str()) {
            (true, _) => "test".into(),
            (false, "train") => "train".into(),
            (false, _) => "valid".into(),
        };
        true
    });
    Ok(rows)
}
