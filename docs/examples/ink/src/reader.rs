//! The data set `chinese-characters`: strokes of 6,400 characters, their English definitions, and the radical that a
//! dictionary lists each under.
//!
//! Strokes are those of the npm package hanzi-writer-data (from Make Me a Hanzi, Arphic Public License); definitions
//! and radicals are those of Unicode's Unihan database (Debian: unicode-data).

use mm_data::{
    Error, Result,
    datasets::{DatasetReader, write_manifest},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

/// Radicals with fewer characters are left out.
const MIN_CHARACTERS: usize = 100;

/// Describes the reader to the registry.
pub const READER: DatasetReader = DatasetReader {
    name: "chinese-characters",
    description: "Chinese characters as strokes, definitions and radicals (npm: hanzi-writer-data; Debian: unicode-data)",
    prepare: |folder, manifest| write_manifest(manifest, &rows(folder)?),
};

/// One row for each character of a frequent radical: `ink`, `definition` and `radical`. As an example of values that
/// are missing, every fourth code point has no ink, and every fourth no definition.
///
/// # Errors
/// When a file of the data set is missing or damaged.
fn rows(folder: &Path) -> Result<Vec<Value>> {
    rows_of(folder, MIN_CHARACTERS)
}

pub(crate) fn rows_of(folder: &Path, min_characters: usize) -> Result<Vec<Value>> {
    let definitions = unihan(&folder.join("Unihan_Readings.txt"), "kDefinition")?;
    let radicals = unihan(&folder.join("Unihan_IRGSources.txt"), "kRSUnicode")?;
    let mut by_radical: BTreeMap<u32, Vec<(u32, PathBuf)>> = BTreeMap::new();
    for (character, file) in stroke_files(&folder.join("package"))? {
        if let Some(radical) = radicals.get(&character).and_then(|text| radical_number(text)) {
            by_radical.entry(radical).or_default().push((character, file));
        }
    }
    by_radical.retain(|_, characters| characters.len() >= min_characters);
    let mut rows = Vec::new();
    for (radical, characters) in by_radical {
        for (character, file) in characters {
            let ink = if character % 4 == 1 { Value::Null } else { medians(&file)? };
            let definition = definitions.get(&character).map(|text| without_radicals(text));
            let definition = definition.filter(|text| character % 4 != 3 && !text.is_empty());
            rows.push(json!({
                "id": format!("U+{character:04X}"), "character": char::from_u32(character),
                "ink": ink, "definition": definition, "radical": radical_name(radical),
            }));
        }
    }
    if rows.is_empty() {
        let expected = "package/*.json of hanzi-writer-data, Unihan_Readings.txt and Unihan_IRGSources.txt";
        return Err(Error::file(folder, format!("found no character of a frequent radical, expected {expected}")));
    }
    Ok(rows)
}

/// A property of Unihan by code point: lines of `U+6CB3`, the property and its value, separated by tabs.
fn unihan(file: &Path, property: &str) -> Result<HashMap<u32, String>> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
    let entry = |line: &str| {
        let mut cells = line.splitn(3, '\t');
        let (code, name, value) = (cells.next()?, cells.next()?, cells.next()?);
        let code = u32::from_str_radix(code.strip_prefix("U+")?, 16).ok()?;
        (name == property).then(|| (code, value.trim().to_owned()))
    };
    Ok(text.lines().filter_map(entry).collect())
}

/// The files that are called after one character, by its code point.
fn stroke_files(folder: &Path) -> Result<BTreeMap<u32, PathBuf>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| Error::file(folder, e))? {
        let path = entry.map_err(|e| Error::file(folder, e))?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let mut chars = stem.chars();
        if let (Some(character), None, true) =
            (chars.next(), chars.next(), path.extension().is_some_and(|e| e == "json"))
        {
            files.insert(u32::from(character), path);
        }
    }
    Ok(files)
}

/// The center lines of a character's strokes, as a brush follows them.
fn medians(file: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
    let mut value: Value = serde_json::from_str(&text).map_err(|e| Error::file(file, format!("not JSON: {e}")))?;
    let medians = value.get_mut("medians").map(Value::take).filter(Value::is_array);
    medians.ok_or_else(|| Error::file(file, "found no list `medians`, expected a file of hanzi-writer-data"))
}

/// The number of the first radical of a value such as `85.5` or `120'.3`.
fn radical_number(text: &str) -> Option<u32> {
    let number = text.split_whitespace().next()?.split('.').next()?;
    number.trim_end_matches('\'').parse().ok().filter(|number| (1..=214).contains(number))
}

/// A radical as Unicode writes it, in its block of the 214 radicals.
fn radical_name(number: u32) -> String {
    char::from_u32(0x2f00 + number - 1).map(String::from).unwrap_or_default()
}

/// A definition without what it says about radicals, which would give the answer away.
fn without_radicals(definition: &str) -> String {
    let parts = definition.split([';', ',']).map(str::trim).filter(|part| !part.to_lowercase().contains("radical"));
    parts.collect::<Vec<_>>().join("; ")
}
