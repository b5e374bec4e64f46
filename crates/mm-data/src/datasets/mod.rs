//! Known data sets: from the folder that their package unpacks to, to a manifest.

mod coco;
#[cfg(feature = "hdf5")]
mod computational_sequences;
mod dictionary_text;
mod easy_vqa;
mod emoji;
mod mosi;
mod multimodal_sentiment;
mod sort_of_clevr;
mod tuxpaint_stamps;

use crate::{Error, Result};
use std::path::Path;

/// The data sets that [`prepare`] knows, each with the package that carries it.
pub const DATASETS: &[(&str, &str)] = &[
    (
        "tuxpaint-stamps",
        "pictures, captions in many languages and spoken descriptions (Debian: tuxpaint-stamps-default)",
    ),
    ("emoji", "small pictures with names and keywords (npm: emoji-datasource-google, emojilib)"),
    ("english-dictionary", "dictionary text, a sentence a line, for learning words (Debian: dict-gcide, wordnet-base)"),
    (
        "mosi",
        "utterances of opinion videos: transcripts and vectors of words, voice and face (CMU-MOSI: bc-LSTM's arrays, or as mosei)",
    ),
    (
        "mosei",
        "the same as steps in time (CMU-MOSEI, CH-SIMS: MMSA's or MultiBench's .pkl, a folder of .csd files, or X_train.h5 and y_train.h5)",
    ),
    ("easy-vqa", "drawn shapes with questions and answers (PyPI: easy-vqa)"),
    ("easy-vqa-unseen", "the same; measured on colours and shapes that were never together in training"),
    (
        "sort-of-clevr",
        "six coloured things, questions about one and about how they lie (drawn into the folder, seeded)",
    ),
    (
        "vqa",
        "questions about photographs with ten people's answers (VQA v1 or v2: *questions.json, *annotations.json, COCO's pictures)",
    ),
    (
        "coco-captions",
        "photographs with five captions (Karpathy's dataset_*.json, or COCO's captions_*.json, and the pictures)",
    ),
];

/// Writes the manifest (or the text) of a known data set that lies unpacked in `folder` (or is that file); the number of its rows is
/// returned.
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

/// The path of `file`, absolute, as text.
fn absolute(file: &Path) -> Result<String> {
    let path = std::fs::canonicalize(file).map_err(|e| Error::file(file, e))?;
    Ok(path.to_string_lossy().into_owned())
}

/// All files below a folder, in order.
fn walk(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut out = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).map_err(|e| Error::file(&next, e))? {
            let path = entry.map_err(|e| Error::file(&next, e))?.path();
            if path.is_dir() { open.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    Ok(out)
}
