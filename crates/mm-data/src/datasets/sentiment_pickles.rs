//! The pickles in which MMSA and MultiBench publish data sets of multimodal sentiment.

use super::sequence_store::{SequenceStore, finite, trim_padding};
use crate::{Error, Result};
use mm_core::checkpoint::{Array, Object, read_pickle};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The manifest's columns, each with the keys that the pickles use for it.
const COLUMN_KEYS: [(&str, &[&str]); 3] =
    [("words", &["text"]), ("voice", &["audio"]), ("face", &["vision", "video", "visual"])];

/// The rows of a pickle of MMSA or MultiBench: a dictionary {train, valid, test}.
pub(super) fn read_file(path: &Path, store: &mut SequenceStore<'_>) -> Result<Vec<Value>> {
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
