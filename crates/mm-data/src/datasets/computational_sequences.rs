//! What of sentiment's data comes as HDF5: CMU's computational sequences and the pairs `X_train.h5`, `y_train.h5`.

use super::multimodal_sentiment::{Store, finite, trimmed};
use crate::{Error, Result};
use hdf5_reader::{Dataset, Hdf5File, group::Group};
use mm_core::Tensor;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// One computational sequence: for each entry its frames and when they are.
struct Sequence {
    path: PathBuf,
    name: String,
    file: Hdf5File,
}

impl Sequence {
    fn open(path: &Path) -> Result<Self> {
        let bad = |reason: String| Error::file(path, reason);
        let file = Hdf5File::open(path).map_err(|e| bad(format!("not an HDF5 file: {e}")))?;
        let root = file.root_group().map_err(|e| bad(e.to_string()))?;
        let (groups, _) = root.member_names().map_err(|e| bad(e.to_string()))?;
        let holds = |name: &&String| root.group(name).and_then(|g| g.group("data")).is_ok();
        let name = groups.iter().find(holds).cloned().ok_or_else(|| {
            bad(format!(
                "found the groups {}, wanted one with `data` in it: a computational sequence",
                groups.join(", ")
            ))
        })?;
        Ok(Self { path: path.to_owned(), name, file })
    }

    fn data(&self) -> Result<Group> {
        let found = self.file.root_group().and_then(|r| r.group(&self.name)).and_then(|g| g.group("data"));
        found.map_err(|e| Error::file(&self.path, e.to_string()))
    }

    fn part(&self, data: &Group, entry: &str, part: &str) -> Result<Dataset> {
        let found = data.group(entry).and_then(|g| g.dataset(part));
        found.map_err(|e| Error::file(&self.path, format!("{entry}/{part}: {e}")))
    }

    /// When each frame begins and ends, in seconds.
    fn intervals(&self, data: &Group, entry: &str) -> Result<Vec<(f64, f64)>> {
        let (values, shape) = self.values(&self.part(data, entry, "intervals")?, entry)?;
        if shape.len() != 2 || shape[1] != 2 {
            let reason = format!("{entry}/intervals: found shape {shape:?}, wanted [frames, 2]");
            return Err(Error::file(&self.path, reason));
        }
        Ok(values.chunks_exact(2).map(|p| (f64::from(p[0]), f64::from(p[1]))).collect())
    }

    fn values(&self, set: &Dataset, entry: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let found = decimals(set).map_err(|reason| Error::file(&self.path, format!("{entry}: {reason}")))?;
        Ok((found, set.shape().iter().map(|s| *s as usize).collect()))
    }
}

/// Numbers of any type, as float32.
fn decimals(set: &Dataset) -> std::result::Result<Vec<f32>, String> {
    set.read_array::<f32>()
        .map(|a| a.iter().copied().collect())
        .or_else(|_| set.read_array::<f64>().map(|a| a.iter().map(|v| *v as f32).collect()))
        .or_else(|_| set.read_array::<i64>().map(|a| a.iter().map(|v| *v as f32).collect()))
        .or_else(|_| set.read_array::<i32>().map(|a| a.iter().map(|v| *v as f32).collect()))
        .map_err(|e| format!("no plain numbers: {e}"))
}

/// A sequence's own name as a column's.
fn column(name: &str) -> String {
    name.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

/// The name of a sequence's modality: the field's names of its extractors.
fn modality(name: &str) -> String {
    let lower = name.to_lowercase();
    let has = |known: &[&str]| known.iter().any(|k| lower.contains(k));
    if has(&["glove", "bert", "word2vec"]) {
        "words".into()
    } else if has(&["covarep", "opensmile", "acoustic"]) {
        "voice".into()
    } else if has(&["facet", "openface", "visual", "face"]) {
        "face".into()
    } else {
        column(name)
    }
}

/// Frames that overlap a stretch of time.
fn within(frames: &[(f64, f64)], (from, to): (f64, f64)) -> Vec<usize> {
    (0..frames.len()).filter(|n| frames[*n].0 < to && frames[*n].1 > from).collect()
}

/// A row for each labelled stretch of each video; of every other sequence the frames that overlap it.
pub(super) fn stretches(folder: &Path, files: &[&PathBuf], store: &mut Store<'_>) -> Result<Vec<Value>> {
    let all = files.iter().map(|f| Sequence::open(f)).collect::<Result<Vec<_>>>()?;
    let is_label = |s: &&Sequence| ["label", "sentiment", "opinion"].iter().any(|k| s.name.to_lowercase().contains(k));
    let names = || all.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(", ");
    let Some(labels) = all.iter().find(is_label) else {
        return Err(Error::file(
            folder,
            format!("found the sequences {}, wanted one of labels (CMU_MOSI_Opinion_Labels.csd)", names()),
        ));
    };
    let mut others: Vec<(String, &Sequence, Group)> = Vec::new();
    for sequence in all.iter().filter(|s| !std::ptr::eq(*s, labels)) {
        let is_words = ["words", "transcript"].iter().any(|k| sequence.name.to_lowercase().contains(k))
            && !["vector", "glove", "bert"].iter().any(|k| sequence.name.to_lowercase().contains(k));
        let mut name = if is_words { "text".to_owned() } else { modality(&sequence.name) };
        if others.iter().any(|(n, ..)| *n == name) {
            name = column(&sequence.name);
        }
        others.push((name, sequence, sequence.data()?));
    }
    let data = labels.data()?;
    let (entries, _) = data.member_names().map_err(|e| Error::file(&labels.path, e.to_string()))?;
    let mut rows = Vec::new();
    for entry in entries {
        let stretches = labels.intervals(&data, &entry)?;
        let (values, shape) = labels.values(&labels.part(&data, &entry, "features")?, &entry)?;
        if shape.len() != 2 || shape[0] != stretches.len() || shape[1] == 0 {
            let reason = format!("{entry}: found labels {shape:?} for {} stretches", stretches.len());
            return Err(Error::file(&labels.path, reason));
        }
        // What the video has of each sequence, read once.
        let mut found: Vec<(&str, Vec<(f64, f64)>, Frames)> = Vec::new();
        for (name, sequence, data) in &others {
            if data.group(&entry).is_err() {
                continue;
            }
            let frames = sequence.intervals(data, &entry)?;
            let features = sequence.part(data, &entry, "features")?;
            let read = if name == "text" {
                let texts = features.read_strings();
                Frames::Words(texts.map_err(|e| Error::file(&sequence.path, format!("{entry}: {e}")))?)
            } else {
                let (values, shape) = sequence.values(&features, &entry)?;
                Frames::Numbers(values, shape.get(1).copied().unwrap_or(1))
            };
            if read.count() != frames.len() {
                let reason = format!("{entry}: found {} frames and {} intervals", read.count(), frames.len());
                return Err(Error::file(&sequence.path, reason));
            }
            found.push((name, frames, read));
        }
        for (number, stretch) in stretches.iter().enumerate() {
            let mut row = Map::new();
            let id = if stretches.len() == 1 { entry.clone() } else { format!("{entry}[{number}]") };
            row.insert("id".into(), json!(id));
            row.insert("video".into(), json!(place_of_entry(&entry)));
            row.insert("segment".into(), json!(stretch.0));
            // The first label is the sentiment; CMU-MOSEI has six emotions behind it.
            row.insert("label".into(), json!(finite(f64::from(values[number * shape[1]]))));
            for (n, name) in EMOTIONS.iter().enumerate().take(shape[1].saturating_sub(1)) {
                row.insert((*name).into(), json!(finite(f64::from(values[number * shape[1] + 1 + n]))));
            }
            for (name, frames, read) in &found {
                let here = within(frames, *stretch);
                match read {
                    Frames::Words(words) => {
                        let said: Vec<&str> =
                            here.iter().map(|n| words[*n].trim_end_matches('\0')).filter(|w| *w != "sp").collect();
                        row.insert("text".into(), json!(said.join(" ")));
                    }
                    Frames::Numbers(values, width) if !here.is_empty() && *width > 0 => {
                        let part: Vec<f32> = here
                            .iter()
                            .flat_map(|n| &values[n * width..(n + 1) * width])
                            .map(|v| if v.is_finite() { *v } else { 0.0 })
                            .collect();
                        row.insert((*name).to_owned(), store.add(name, *width, &part)?);
                    }
                    Frames::Numbers(..) => {}
                }
            }
            rows.push(Value::Object(row));
        }
    }
    Ok(rows)
}

const EMOTIONS: [&str; 6] = ["happy", "sad", "anger", "surprise", "disgust", "fear"];

/// Aligned sequences have an entry for each utterance, `video[3]`.
fn place_of_entry(entry: &str) -> &str {
    entry.rsplit_once('[').map_or(entry, |(video, _)| video)
}

enum Frames {
    Words(Vec<String>),
    Numbers(Vec<f32>, usize),
}

impl Frames {
    fn count(&self) -> usize {
        match self {
            Self::Words(words) => words.len(),
            Self::Numbers(values, width) => values.len() / (*width).max(1),
        }
    }
}

/// `X_train.h5` and `y_train.h5`, and so on: all modalities side by side, as MFN's authors (Zadeh 2018) pass them around.
pub(super) fn pairs(folder: &Path, store: &mut Store<'_>) -> Result<Vec<Value>> {
    let mut rows = Vec::new();
    for split in ["train", "valid", "test"] {
        let path = folder.join(format!("X_{split}.h5"));
        if !path.exists() {
            continue;
        }
        let open = |path: &Path| -> Result<(Vec<f32>, Vec<usize>)> {
            let bad = |reason: String| Error::file(path, reason);
            let file = Hdf5File::open(path).map_err(|e| bad(format!("not an HDF5 file: {e}")))?;
            let sets = file.root_group().and_then(|r| r.datasets()).map_err(|e| bad(e.to_string()))?;
            let [set] = sets.as_slice() else { return Err(bad(format!("found {} arrays, wanted one", sets.len()))) };
            Ok((decimals(set).map_err(bad)?, set.shape().iter().map(|s| *s as usize).collect()))
        };
        let (values, shape) = open(&path)?;
        let (labels, _) = open(&folder.join(format!("y_{split}.h5")))?;
        let &[count, steps, width] = shape.as_slice() else {
            return Err(Error::file(&path, format!("found shape {shape:?}, wanted [rows, steps, width]")));
        };
        if labels.len() != count {
            return Err(Error::file(&path, format!("found {count} rows and {} labels, wanted as many", labels.len())));
        }
        for (row, label) in labels.iter().enumerate() {
            let own = Tensor::from_vec(
                &values[row * steps * width..(row + 1) * steps * width],
                &[steps as i64, width as i64],
            )?;
            let id = format!("{split}-{row}");
            let mut out = Map::from_iter([
                ("id".to_owned(), json!(id)),
                ("video".to_owned(), json!(id)),
                ("split".to_owned(), json!(split)),
                ("label".to_owned(), json!(finite(f64::from(*label)))),
            ]);
            if let Some(lines) = trimmed(&own, None)? {
                out.insert("frames".into(), store.add("frames", lines.1, &lines.0)?);
            }
            rows.push(Value::Object(out));
        }
    }
    if rows.is_empty() {
        return Err(Error::file(folder, "found no X_train.h5, X_valid.h5 or X_test.h5"));
    }
    Ok(rows)
}
