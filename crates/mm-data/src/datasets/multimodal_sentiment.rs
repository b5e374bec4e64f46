//! Sentiment from words, voice and face as the field passes it around: pickles of CMU-MOSI, CMU-MOSEI and CH-SIMS (MMSA's and MultiBench's
//! layouts), CMU's computational sequences (`.csd`, which are HDF5) and the `X_train.h5` / `y_train.h5` pairs of MFN's authors.
//!
//! The vectors of all rows go into one `.npy` file for each modality beside the manifest; a row says which of its lines are its own.

use crate::{Error, Result, npy_header};
use mm_core::{
    Tensor,
    checkpoint::{Array, Object, read_pickle},
};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Lines of vectors, written as they come.
struct Lines {
    path: PathBuf,
    /// As a manifest names it: absolute.
    name: String,
    file: BufWriter<File>,
    width: usize,
    count: usize,
}

/// Room for any number of lines in the head that is written last.
const HEAD: usize = 128;

impl Lines {
    fn new(path: PathBuf, width: usize) -> Result<Self> {
        let mut file = BufWriter::new(File::create(&path).map_err(|e| Error::file(&path, e))?);
        file.write_all(&[0; HEAD]).map_err(|e| Error::file(&path, e))?;
        let name = super::absolute(&path)?;
        Ok(Self { path, name, file, width, count: 0 })
    }

    /// Adds lines; how a manifest names them comes back.
    fn add(&mut self, values: &[f32]) -> Result<Value> {
        let length = values.len() / self.width.max(1);
        for value in values {
            self.file.write_all(&value.to_le_bytes()).map_err(|e| Error::file(&self.path, e))?;
        }
        let from = self.count;
        self.count += length;
        Ok(json!({"array": self.name, "from": from, "length": length}))
    }

    fn end(mut self) -> Result<()> {
        let head = npy_header("<f4", &[self.count, self.width]);
        if head.len() != HEAD {
            return Err(Error::file(
                &self.path,
                format!("found {} lines, more than its head has room to say", self.count),
            ));
        }
        let written = self.file.seek(SeekFrom::Start(0)).and_then(|_| self.file.write_all(&head));
        written.and_then(|()| self.file.flush()).map_err(|e| Error::file(&self.path, e))
    }
}

/// The files that the lines of each modality go into.
pub(super) struct Store<'a> {
    manifest: &'a Path,
    open: BTreeMap<String, Lines>,
}

impl Store<'_> {
    pub(super) fn add(&mut self, name: &str, width: usize, values: &[f32]) -> Result<Value> {
        if !self.open.contains_key(name) {
            let stem = self.manifest.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let path = self.manifest.with_file_name(format!("{stem}-{name}.npy"));
            self.open.insert(name.to_owned(), Lines::new(path, width)?);
        }
        let lines = self.open.get_mut(name).ok_or_else(|| Error::file(self.manifest, "no place for its lines"))?;
        if lines.width != width {
            let reason = format!("found {name} of width {width}, wanted {} as before", lines.width);
            return Err(Error::file(self.manifest, reason));
        }
        lines.add(values)
    }

    fn end(self) -> Result<()> {
        self.open.into_values().try_for_each(Lines::end)
    }
}

/// Rows of a pickle, or of a folder of `.csd` or `.h5` files.
pub(super) fn rows(from: &Path, manifest: &Path) -> Result<Vec<Value>> {
    if let Some(parent) = manifest.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::file(parent, e))?;
    }
    let mut store = Store { manifest, open: BTreeMap::new() };
    let rows = if from.is_file() { pickle(from, &mut store)? } else { folder(from, &mut store)? };
    store.end()?;
    Ok(rows)
}

fn folder(folder: &Path, store: &mut Store<'_>) -> Result<Vec<Value>> {
    let files = super::walk(folder)?;
    let ending = |known: &[&str]| -> Vec<&PathBuf> {
        files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| known.iter().any(|k| e.eq_ignore_ascii_case(k))))
            .collect()
    };
    let pickles = ending(&["pkl", "pickle"]);
    if let [one] = pickles.as_slice() {
        return pickle(one, store);
    }
    let (csd, h5) = (ending(&["csd", "hdf5"]), ending(&["h5"]));
    #[cfg(feature = "hdf5")]
    if !csd.is_empty() {
        return super::computational_sequences::stretches(folder, &csd, store);
    } else if !h5.is_empty() {
        return super::computational_sequences::pairs(folder, store);
    }
    #[cfg(not(feature = "hdf5"))]
    if let Some(file) = csd.first().or(h5.first()) {
        return Err(Error::file(file.as_path(), "an HDF5 file; mm-data was built without its feature `hdf5`"));
    }
    let names = pickles.iter().take(5).filter_map(|p| p.file_name()).map(|n| n.to_string_lossy()).collect::<Vec<_>>();
    let found = if names.is_empty() {
        "none of these".to_owned()
    } else {
        format!("the pickles {}; name one", names.join(", "))
    };
    Err(Error::file(
        folder,
        format!(
            "found {found}, wanted utterances.csv with its arrays, one .pkl, .csd files, or X_train.h5 and y_train.h5"
        ),
    ))
}

/// The names that modalities have in the field's pickles and here.
const NAMES: [(&str, &[&str]); 3] =
    [("words", &["text"]), ("voice", &["audio"]), ("face", &["vision", "video", "visual"])];

fn pickle(path: &Path, store: &mut Store<'_>) -> Result<Vec<Value>> {
    let bad = |reason: String| Error::file(path, reason);
    let root = read_pickle(path)?;
    let mut rows = Vec::new();
    for (split, keys) in [("train", &["train"][..]), ("valid", &["valid", "val", "dev"]), ("test", &["test"])] {
        let Some((key, side)) = keys.iter().find_map(|k| Some((*k, root.get(k)?))) else { continue };
        if !matches!(side, Object::Dict(_)) {
            return Err(bad(format!(
                "`{key}` is no dictionary; wanted {{train, valid, test}} of {{text, audio, vision, labels or regression_labels, id}}, as MMSA and MultiBench write it"
            )));
        }
        side_of(path, split, side, store, &mut rows)?;
    }
    if rows.is_empty() {
        return Err(bad("found no rows, wanted a dictionary {train, valid, test}".into()));
    }
    Ok(rows)
}

fn side_of(path: &Path, split: &str, side: &Object, store: &mut Store<'_>, rows: &mut Vec<Value>) -> Result<()> {
    let bad = |reason: String| Error::file(path, format!("{split}: {reason}"));
    let labels = ["regression_labels", "labels"].iter().find_map(|k| numbers(side.get(k)?));
    let labels = labels.ok_or_else(|| bad("found neither `regression_labels` nor `labels` of numbers".into()))?;
    let count = labels.len();
    let own: Vec<(&str, Vec<f64>)> = [("label_text", "T"), ("label_voice", "A"), ("label_face", "V")]
        .iter()
        .filter_map(|(name, letter)| Some((*name, numbers(side.get(&format!("regression_labels_{letter}"))?)?)))
        .collect();
    let ids = texts(side.get("id"));
    let transcript = texts(side.get("raw_text"));
    for (what, found) in [("id", ids.len()), ("raw_text", transcript.len())] {
        if found != 0 && found != count {
            return Err(bad(format!("found {found} of `{what}` and {count} labels, wanted as many")));
        }
    }
    let mut arrays: Vec<(&str, &Array, Option<Vec<f64>>)> = Vec::new();
    for (name, keys) in NAMES {
        let Some((key, array)) = keys.iter().find_map(|k| match side.get(k) {
            Some(Object::Array(array)) => Some((*k, array)),
            _ => None,
        }) else {
            continue;
        };
        if !(2..=3).contains(&array.shape().len()) || array.shape()[0] as usize != count {
            return Err(bad(format!("`{key}`: found shape {:?}, wanted [{count}, steps, width]", array.shape())));
        }
        arrays.push((name, array, side.get(&format!("{key}_lengths")).and_then(numbers)));
    }
    if arrays.is_empty() && transcript.is_empty() {
        return Err(bad("found neither arrays text, audio, vision nor `raw_text`".into()));
    }
    for (row, label) in labels.iter().enumerate() {
        let id = ids.get(row).cloned().unwrap_or_else(|| format!("{split}-{row}"));
        let (video, segment) = place(&id);
        let mut out = Map::new();
        out.insert("id".into(), json!(id));
        out.insert("video".into(), json!(video));
        out.insert("segment".into(), json!(segment.unwrap_or(row as f64)));
        out.insert("split".into(), json!(split));
        // A label that is no number is none: its row is there to be answered for.
        out.insert("label".into(), json!(finite(*label)));
        for (name, values) in &own {
            out.insert((*name).into(), json!(values.get(row).copied().and_then(finite)));
        }
        if let Some(text) = transcript.get(row) {
            out.insert("text".into(), json!(text));
        }
        for (name, array, lengths) in &arrays {
            let steps = array.row(row).map_err(|e| bad(e.to_string()))?;
            let told = lengths.as_ref().and_then(|l| l.get(row)).map(|l| l.max(1.0) as usize);
            if let Some(lines) = trimmed(&steps, told)? {
                out.insert((*name).into(), store.add(name, lines.1, &lines.0)?);
            }
        }
        rows.push(Value::Object(out));
    }
    Ok(())
}

pub(super) fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// The steps of a row without the zeros that fill it up (before it or after it), and their width; none where nothing is left.
pub(super) fn trimmed(steps: &Tensor, told: Option<usize>) -> Result<Option<(Vec<f32>, usize)>> {
    let shape = steps.shape();
    let (length, width) =
        if let [width] = shape[..] { (1, width as usize) } else { (shape[0] as usize, shape[1] as usize) };
    let mut values: Vec<f32> = steps.to_vec()?;
    // Divisions by a silent deviation leave infinities in the published arrays.
    values.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = 0.0);
    let filled: Vec<bool> = values.chunks(width.max(1)).map(|step| step.iter().any(|v| *v != 0.0)).collect();
    let Some(first) = filled.iter().position(|f| *f) else { return Ok(None) };
    let last = filled.iter().rposition(|f| *f).unwrap_or(first);
    // Where a length is told it counts from the end that is not filled up.
    let (from, to) = match told {
        Some(told) if told < length && first > 0 && last + 1 == length => (length - told, length),
        Some(told) if told <= length => (0, told),
        _ => (first, last + 1),
    };
    Ok((to > from && width > 0).then(|| (values[from * width..to * width].to_vec(), width)))
}

fn numbers(object: &Object) -> Option<Vec<f64>> {
    match object {
        Object::Array(array) => array.all().ok()?.to_vec().ok(),
        Object::List(items) => items
            .iter()
            .map(|i| match i {
                Object::Float(v) => Some(*v),
                Object::Int(v) => Some(*v as f64),
                Object::Array(array) if array.shape().iter().product::<i64>() == 1 => array.all().ok()?.to_f64().ok(),
                _ => None,
            })
            .collect(),
        _ => None,
    }
}

/// Texts of a list; of a list of lists the first of each.
fn texts(object: Option<&Object>) -> Vec<String> {
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

/// The video and the number of the utterance in an id: `abc$_$3`, `abc[3]`, `abc_3`.
fn place(id: &str) -> (&str, Option<f64>) {
    let cut = |(video, rest): (&'_ str, &str)| rest.trim_end_matches(']').parse::<f64>().ok().map(|_| video.len());
    let length = id
        .split_once("$_$")
        .and_then(cut)
        .or_else(|| id.rsplit_once('[').and_then(cut))
        .or_else(|| id.rsplit_once('_').and_then(cut));
    let Some(length) = length else { return (id, None) };
    let digits: String = id[length..].chars().filter(char::is_ascii_digit).collect();
    (&id[..length], digits.parse().ok())
}
