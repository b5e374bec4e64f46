//! Emoji: Google's images of 64 pixels with their names and keywords. The skin tones of an emoji are one group.

use super::{DatasetReader, absolute, write_manifest};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::Path;

pub(super) const READER: DatasetReader = DatasetReader {
    name: "emoji",
    description: "emoji images with names and keywords (npm: emoji-datasource-google, emojilib)",
    prepare: |folder, manifest| write_manifest(manifest, &rows(folder)?),
};

fn read_json(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
    serde_json::from_str(&text).map_err(|e| Error::file(path, format!("not JSON: {e}")))
}

fn rows(folder: &Path) -> Result<Vec<Value>> {
    let data = folder.join("emoji-datasource-google");
    let table = read_json(&data.join("emoji.json"))?;
    let keywords = read_json(&folder.join("emojilib/dist/emoji-en-US.json")).unwrap_or(Value::Null);
    let mut rows = Vec::new();
    for entry in table.as_array().into_iter().flatten() {
        let (Some(name), Some(unified)) = (entry["name"].as_str(), entry["unified"].as_str()) else { continue };
        let variants = entry["skin_variations"].as_object().into_iter().flatten().map(|(_, v)| v);
        for (number, variant) in std::iter::once(entry).chain(variants).enumerate() {
            let Some(file) = variant["image"].as_str() else { continue };
            let image = data.join("img/google/64").join(file);
            if !image.exists() {
                continue;
            }
            let symbol: String =
                unified.split('-').filter_map(|h| u32::from_str_radix(h, 16).ok().and_then(char::from_u32)).collect();
            let words: Vec<&str> =
                keywords[&symbol].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let name = name.to_lowercase();
            let mut texts = vec![name.clone()];
            if !words.is_empty() {
                texts.push(words.join(" ").replace('_', " "));
            }
            let id = if number == 0 { unified } else { variant["unified"].as_str().unwrap_or(file) };
            rows.push(json!({
                "id": id, "group": unified, "label": entry["category"], "image": absolute(&image)?, "name": name, "text": texts,
            }));
        }
    }
    if rows.is_empty() {
        return Err(Error::file(
            folder,
            "found no emoji, expected the folders of the npm packages emoji-datasource-google and emojilib",
        ));
    }
    Ok(rows)
}
