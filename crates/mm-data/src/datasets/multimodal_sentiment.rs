//! Multimodal sentiment analysis: CMU-MOSI, CMU-MOSEI and CH-SIMS in the formats in which they are published.
//!
//! These are the pickles of MMSA and MultiBench, CMU's computational sequences (`.csd`, which are HDF5), and the
//! `X_train.h5` and `y_train.h5` of the authors of [MFN](https://arxiv.org/abs/1802.00927) (Zadeh et al., 2018).

use super::sequence_store::{SequenceStore, finite, trim_padding};
use super::{DatasetReader, write_manifest};
use crate::{Error, Result};
use mm_core::checkpoint::{Array, Object, read_pickle};
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

pub(super) const READER: DatasetReader = DatasetReader {
    name: "mosei",
    description: "CMU-MOSEI or CH-SIMS: the same with features over time (MMSA's or MultiBench's .pkl, a folder of .csd files, or \
                  X_train.h5 and y_train.h5)",
    prepare: |from, manifest| write_manifest(manifest, &rows(from, manifest)?),
};

/// Rows of a pickle, or of a folder of `.csd` or `.h5` files.
pub(super) fn rows(from: &Path, manifest: &Path) -> Result<Vec<Value>> {
    if let Some(parent) = manifest.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::file(parent, e))?;
    }
    let mut store = SequenceStore::new(manifest);
    let read = || if from.is_file() { read_file(from, &mut store) } else { read_folder(from, &mut store) };
    let rows = crate::catching_panics(read).map_err(|e| Error::file(from, e))??;
    store.finish()?;
    Ok(rows)
}

/// Detects which format the files of a folder are in.
fn read_folder(folder: &Path, store: &mut SequenceStore<'_>) -> Result<Vec<Value>> {
    let files = super::walk(folder)?;
    let with_extension = |known: &[&str]| -> Vec<&PathBuf> {
        files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| known.iter().any(|k| e.eq_ignore_ascii_case(k))))
            .collect()
    };
    let pickles = with_extension(&["pkl", "pickle"]);
    if let [one] = pickles.as_slice() {
        return read_file(one, store);
    }
    let (csd, h5) = (with_extension(&["csd", "hdf5"]), with_extension(&["h5"]));
    #[cfg(feature = "hdf5")]
    if !csd.is_empty() {
        return super::computational_sequences::labeled_intervals(folder, &csd, store);
    } else if !h5.is_empty() {
        return super::computational_sequences::aligned_arrays(folder, store);
    }
    #[cfg(not(feature = "hdf5"))]
    if let Some(file) = csd.first().or(h5.first()) {
        return Err(Error::file(
            file.as_path(),
            "HDF5 is not supported by this build; build mm-data with its `hdf5` feature",
        ));
    }
    let names = pickles.iter().take(5).filter_map(|p| p.file_name()).map(|n| n.to_string_lossy()).collect::<Vec<_>>();
    let found = if names.is_empty() {
        "none of these".to_owned()
    } else {
        format!("the pickles {} (pass the path of one)", names.join(", "))
    };
    Err(Error::file(
        folder,
        format!(
            "found {found}, expected utterances.csv with its arrays, one .pkl, .csd files, or X_train.h5 and y_train.h5"
        ),
    ))
}

/// The manifest's columns, each with the keys that the pickles use for it.
const COLUMN_KEYS: [(&str, &[&str]); 3] =
    [("words", &["text"]), ("voice", &["audio"]), ("face", &["vision", "video", "visual"])];

fn read_file(path: &Path, store: &mut SequenceStore<'_>) -> Result<Vec<Value>> {
    let bad = |reason: String| Error::file(path, reason);
    let root = read_pickle(path)?;
    let mut rows = Vec::new();
    for (split, keys) in [("train", &["train"][..]), ("valid", &["valid", "val", "dev"]), ("test", &["test"])] {
        let Some((key, dict)) = keys.iter().find_map(|k| Some((*k, root.get(k)?))) else { continue };
        if !matches!(dict, Object::Dict(_)) {
            return Err(bad(format!(
                "`{key}` is not a dictionary; expected {{train, valid, test}} of {{text, audio, vision, labels or \
                 regression_labels, id}}, as MMSA and MultiBench write it"
            )));
        }
        read_split(path, split, dict, store, &mut rows)?;
    }
    if rows.is_empty() {
        return Err(bad("found no rows, expected a dictionary {train, valid, test}".into()));
    }
    Ok(rows)
}

/// Appends the rows of one split.
fn read_split(
    path: &Path,
    split: &str,
    dict: &Object,
    store: &mut SequenceStore<'_>,
    rows: &mut Vec<Value>,
) -> Result<()> {
    let bad = |reason: String| Error::file(path, format!("{split}: {reason}"));
    let labels = ["regression_labels", "labels"].iter().find_map(|k| to_numbers(dict.get(k)?));
    let labels = labels.ok_or_else(|| bad("found neither `regression_labels` nor `labels` with numbers".into()))?;
    let count = labels.len();
    let unimodal_labels: Vec<(&str, Vec<f64>)> = [("label_text", "T"), ("label_voice", "A"), ("label_face", "V")]
        .iter()
        .filter_map(|(name, letter)| Some((*name, to_numbers(dict.get(&format!("regression_labels_{letter}"))?)?)))
        .collect();
    let ids = to_texts(dict.get("id"));
    let transcript = to_texts(dict.get("raw_text"));
    for (key, found) in [("id", ids.len()), ("raw_text", transcript.len())] {
        if found != 0 && found != count {
            return Err(bad(format!("found {found} of `{key}` and {count} labels, expected as many")));
        }
    }
    let mut arrays: Vec<(&str, &Array, Option<Vec<f64>>)> = Vec::new();
    for (name, keys) in COLUMN_KEYS {
        let Some((key, array)) = keys.iter().find_map(|k| match dict.get(k) {
            Some(Object::Array(array)) => Some((*k, array)),
            _ => None,
        }) else {
            continue;
        };
        if !(2..=3).contains(&array.shape().len()) || array.shape()[0] as usize != count {
            return Err(bad(format!("`{key}`: found shape {:?}, expected [{count}, steps, features]", array.shape())));
        }
        arrays.push((name, array, dict.get(&format!("{key}_lengths")).and_then(to_numbers)));
    }
    if arrays.is_empty() && transcript.is_empty() {
        return Err(bad("found neither arrays text, audio, vision nor `raw_text`".into()));
    }
    for (row, label) in labels.iter().enumerate() {
        let id = ids.get(row).cloned().unwrap_or_else(|| format!("{split}-{row}"));
        let (video, segment) = split_id(&id);
        let mut out = Map::new();
        out.insert("id".into(), json!(id));
        out.insert("video".into(), json!(video));
        out.insert("segment".into(), json!(segment.unwrap_or(row as f64)));
        out.insert("split".into(), json!(split));
        // A row without a finite label is kept: it can be predicted.
        out.insert("label".into(), json!(finite(*label)));
        for (name, values) in &unimodal_labels {
            out.insert((*name).into(), json!(values.get(row).copied().and_then(finite)));
        }
        if let Some(text) = transcript.get(row) {
            out.insert("text".into(), json!(text));
        }
        for (name, array, lengths) in &arrays {
            let steps = array.row(row).map_err(|e| bad(e.to_string()))?;
            let length = lengths.as_ref().and_then(|l| l.get(row)).map(|l| l.max(1.0) as usize);
            if let Some((values, dim)) = trim_padding(&steps, length)? {
                out.insert((*name).into(), store.push(name, dim, &values)?);
            }
        }
        rows.push(Value::Object(out));
    }
    Ok(())
}

/// The values of an array or of a list of numbers.
fn to_numbers(object: &Object) -> Option<Vec<f64>> {
    match object {
        Object::Array(array) => array.to_tensor().ok()?.to_vec().ok(),
        Object::List(items) => items
            .iter()
            .map(|i| match i {
                Object::Float(v) => Some(*v),
                Object::Int(v) => Some(*v as f64),
                Object::Array(array) if array.shape().iter().product::<i64>() == 1 => {
                    array.to_tensor().ok()?.to_f64().ok()
                }
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// The texts of a list; of a list of lists, the first text of each.
fn to_texts(object: Option<&Object>) -> Vec<String> {
    let Some(Object::List(items)) = object else { return Vec::new() };
    let text = |o: &Object| match o {
        Object::Text(t) => Some(t.clone()),
        Object::Int(n) => Some(n.to_string()),
        _ => None,
    };
    items
        .iter()
        .map(|i| match i {
            Object::List(parts) => parts.first().and_then(text),
            other => text(other),
        })
        .collect::<Option<Vec<_>>>()
        .unwrap_or_default()
}

/// The video and the index of the utterance in an id: `abc$_$3`, `abc[3]`, `abc_3`.
fn split_id(id: &str) -> (&str, Option<f64>) {
    let video_length =
        |(video, rest): (&'_ str, &str)| rest.trim_end_matches(']').parse::<f64>().ok().map(|_| video.len());
    let length = id
        .split_once("$_$")
        .and_then(video_length)
        .or_else(|| id.rsplit_once('[').and_then(video_length))
        .or_else(|| id.rsplit_once('_').and_then(video_length));
    let Some(length) = length else { return (id, None) };
    let digits: String = id[length..].chars().filter(char::is_ascii_digit).collect();
    (&id[..length], digits.parse().ok())
}
