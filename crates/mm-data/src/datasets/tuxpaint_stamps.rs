//! Tux Paint's stamps: drawings and photographs, each with a caption in many languages and, often, spoken descriptions.
//!
//! A row is a stamp: its image (the png, and the svg where it has both), its captions (English first), its spoken
//! descriptions with their languages. Numbered, lettered, mirrored and rotated variants of an image, in whatever
//! folder, have the same `group`, so that a split by group puts no variant of a test image into the training split.

use super::{DatasetReader, absolute, walk, write_manifest};
use crate::{Error, Result, decode::read_text};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub(super) const READER: DatasetReader = DatasetReader {
    name: "tuxpaint-stamps",
    description: "clip art with captions in many languages and spoken descriptions (Debian: tuxpaint-stamps-default)",
    prepare: |folder, manifest| write_manifest(manifest, &rows(folder)?),
};

/// Languages with at least some hundred spoken descriptions; the others have too few to train on.
const SPOKEN_LANGUAGES: &[&str] = &["fr", "ru", "ro", "ca", "bg", "es", "be", "el", "da", "en"];

fn rows(folder: &Path) -> Result<Vec<Value>> {
    let files = walk(folder)?;
    let mut images: BTreeMap<PathBuf, Vec<&PathBuf>> = BTreeMap::new();
    let mut recordings: BTreeMap<PathBuf, Vec<(&str, &PathBuf)>> = BTreeMap::new();
    for file in &files {
        let extension = file.extension().and_then(|e| e.to_str()).unwrap_or("");
        let stem = file.file_stem().and_then(|s| s.to_str()).unwrap_or("");
        match extension {
            // png sorts before svg, so it is the first image where there are both.
            "png" | "svg" => images.entry(file.with_extension("")).or_default().push(file),
            "ogg" | "wav" => {
                if let Some((base, language)) = stem.rsplit_once("_desc") {
                    let language = if language.is_empty() { "en" } else { language.trim_start_matches('_') };
                    if SPOKEN_LANGUAGES.contains(&language) {
                        recordings.entry(file.with_file_name(base)).or_default().push((language, file));
                    }
                }
            }
            _ => {}
        }
    }
    let root = files.iter().find_map(|f| f.ancestors().find(|a| a.ends_with("tuxpaint/stamps"))).unwrap_or(folder);
    let mut rows = Vec::new();
    for (base, images) in &images {
        let text = base.with_extension("txt");
        let text = if text.exists() { text } else { PathBuf::from(format!("{}.txt", base.display())) };
        if !text.exists() {
            continue;
        }
        let captions = captions(&read_text(&text, None)?);
        if captions.is_empty() {
            continue;
        }
        let id = base.strip_prefix(root).unwrap_or(base).to_string_lossy().into_owned();
        let stem = base.file_name().and_then(|n| n.to_str()).unwrap_or("");
        let recordings = recordings.get(base).map(Vec::as_slice).unwrap_or_default();
        let audio = recordings
            .iter()
            .map(|(l, f)| Ok(json!({"file": absolute(f)?, "language": l})))
            .collect::<Result<Vec<_>>>()?;
        rows.push(json!({
            "id": id,
            "group": group_name(stem),
            "kind": id.split('/').next().unwrap_or(""),
            "image": images.iter().map(|p| absolute(p)).collect::<Result<Vec<_>>>()?,
            "text": captions.iter().map(|(l, t)| json!({"text": t, "language": l})).collect::<Vec<_>>(),
            "audio": audio,
        }));
    }
    if rows.is_empty() {
        return Err(Error::file(folder, "found no stamps, expected the unpacked package tuxpaint-stamps-default"));
    }
    Ok(rows)
}

/// The captions with their languages: the first line is English, the others have the form `fr.utf8=…`.
fn captions(text: &str) -> Vec<(String, String)> {
    let mut lines = text.lines().map(str::trim).filter(|l| !l.is_empty());
    let Some(first) = lines.next() else { return Vec::new() };
    let mut out = vec![("en".to_owned(), first.to_owned())];
    out.extend(lines.filter_map(|line| {
        let (language, caption) = line.split_once(".utf8=")?;
        (!caption.trim().is_empty()).then(|| (language.to_owned(), caption.trim().to_owned()))
    }));
    out
}

/// The name of an image without what distinguishes its variants.
fn group_name(stem: &str) -> String {
    const VARIANTS: &[&str] = &[
        "left", "right", "mirror", "mirrored", "front", "back", "top", "bottom", "up", "down", "side", "profile",
        "facing", "face", "flip", "flipped", "rotated", "turned", "zzz",
    ];
    let lower = stem.to_lowercase();
    let mut name = lower.trim_matches(|c: char| c.is_ascii_digit());
    loop {
        let before = name;
        name = name.trim_end_matches(['-', '_', ' ']).trim_end_matches(|c: char| c.is_ascii_digit());
        if let Some((head, tail)) = name.rsplit_once(['-', '_', ' '])
            && !head.is_empty()
            && (tail.len() == 1 || VARIANTS.contains(&tail))
        {
            name = head;
        }
        if name == before {
            break;
        }
    }
    if name.is_empty() { lower } else { name.replace(['-', ' '], "_") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_one_group_and_captions_are_parsed() {
        for (stem, expected) in [
            ("cep-2", "cep"),
            ("note_050_b", "note"),
            ("yen100", "yen"),
            ("asl_zzz_7", "asl"),
            ("asl_q", "asl"),
            ("crow", "crow"),
            ("football_helmet_front", "football_helmet"),
            ("Candy_cane_photo_2", "candy_cane_photo"),
            ("silver-gull", "silver_gull"),
        ] {
            assert_eq!(group_name(stem), expected);
        }
        let text = "A dog.\nfr.utf8=Un chien.\nca@valencia.utf8=Un gos.\nxx.utf8=\n";
        let found = captions(text);
        assert_eq!(found.len(), 3);
        assert_eq!(found[1], ("fr".to_owned(), "Un chien.".to_owned()));
    }
}
