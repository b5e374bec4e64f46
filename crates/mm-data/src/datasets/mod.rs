//! Known data sets: writes the manifest of a data set that was downloaded and unpacked.

mod coco;
#[cfg(feature = "hdf5")]
mod computational_sequences;
mod dictionary_text;
mod easy_vqa;
mod emoji;
mod mosi;
mod multimodal_sentiment;
#[cfg(feature = "pickle")]
mod sentiment_pickles;
mod sequence_store;
mod sort_of_clevr;
mod tuxpaint_stamps;

use crate::{Error, Result};
use std::path::Path;

/// The data sets that [`prepare`] supports: their names, and descriptions with the package that contains them.
pub const DATASETS: &[(&str, &str)] = &[
    (
        "tuxpaint-stamps",
        "clip art with captions in many languages and spoken descriptions (Debian: tuxpaint-stamps-default)",
    ),
    ("emoji", "emoji images with names and keywords (npm: emoji-datasource-google, emojilib)"),
    (
        "english-dictionary",
        "dictionary text, one sentence per line, for training word vectors (Debian: dict-gcide, wordnet-base)",
    ),
    (
        "mosi",
        "CMU-MOSI: utterances of opinion videos as transcripts and text, audio and visual features (bc-LSTM's arrays, or as \
         for mosei)",
    ),
    (
        "mosei",
        "CMU-MOSEI or CH-SIMS: the same with features over time (MMSA's or MultiBench's .pkl, a folder of .csd files, or \
         X_train.h5 and y_train.h5)",
    ),
    ("easy-vqa", "images of colored shapes with questions and answers (PyPI: easy-vqa)"),
    ("easy-vqa-unseen", "easy-vqa with a test split of combinations of color and shape that training does not contain"),
    (
        "sort-of-clevr",
        "images of six colored objects with questions about one object and about their relations (generated, seeded)",
    ),
    (
        "vqa",
        "questions about photographs with ten answers each (VQA v1 or v2: *questions.json, *annotations.json, COCO's images)",
    ),
    (
        "coco-captions",
        "photographs with five captions each (Karpathy's dataset_*.json, or COCO's captions_*.json, and the images)",
    ),
];

/// Writes the manifest of a known data set (for english-dictionary, its text) and returns the number of its rows.
/// `folder` is the folder to which the data set was unpacked, or its file.
///
/// # Errors
/// When the name is not in [`DATASETS`], or files of the data set are missing or damaged.
pub fn prepare(name: &str, folder: &Path, manifest: &Path) -> Result<usize> {
    if name == "english-dictionary" {
        return dictionary_text::write(folder, manifest);
    }
    let rows = match name {
        "tuxpaint-stamps" => tuxpaint_stamps::rows(folder)?,
        "emoji" => emoji::rows(folder)?,
        "easy-vqa" => easy_vqa::rows(folder)?,
        "easy-vqa-unseen" => easy_vqa::unseen(folder)?,
        "sort-of-clevr" => sort_of_clevr::rows(folder)?,
        "vqa" => coco::questions(folder)?,
        "coco-captions" => coco::captions(folder)?,
        "mosi" if folder.join("utterances.csv").exists() => mosi::rows(folder)?,
        "mosi" | "mosei" => multimodal_sentiment::rows(folder, manifest)?,
        other => {
            let known = DATASETS.iter().map(|(n, _)| *n);
            return Err(mm_core::Error::unknown("data set", other, known).into());
        }
    };
    let text: String = rows.iter().map(|r| r.to_string() + "\n").collect();
    if let Some(parent) = manifest.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::file(parent, e))?;
    }
    mm_core::checkpoint::write_atomic(manifest, text.as_bytes())?;
    Ok(rows.len())
}

/// The absolute path of a file.
fn absolute(file: &Path) -> Result<String> {
    let path = std::fs::canonicalize(file).map_err(|e| Error::file(file, e))?;
    Ok(path.to_string_lossy().into_owned())
}

/// All files in a folder and its subfolders, sorted by path.
fn walk(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut out = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).map_err(|e| Error::file(&next, e))? {
            let path = entry.map_err(|e| Error::file(&next, e))?.path();
            if path.is_dir() { pending.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    Ok(out)
}
