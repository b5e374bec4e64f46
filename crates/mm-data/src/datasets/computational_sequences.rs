//! Multimodal sentiment data in HDF5: CMU's computational sequences, and the arrays `X_train.h5` and `y_train.h5`.

use super::sequence_store::{SequenceStore, finite, trim_padding};
use crate::{Error, Result};
use hdf5_reader::{Dataset, Hdf5File, group::Group};
use mm_core::Tensor;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// One computational sequence: for each entry (a video), its frames and their time intervals.
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
        let has_data = |name: &&String| root.group(name).and_then(|g| g.group("data")).is_ok();
        let name = groups.iter().find(has_data).cloned().ok_or_else(|| {
            bad(format!(
                "found the groups {}, expected one that contains `data`, as a computational sequence does",
                groups.join(", ")
            ))
        })?;
        Ok(Self { path: path.to_owned(), name, file })
    }

    fn data(&self) -> Result<Group> {
        let found = self.file.root_group().and_then(|r| r.group(&self.name)).and_then(|g| g.group("data"));
        found.map_err(|e| Error::file(&self.path, e.to_string()))
    }

    fn dataset(&self, data: &Group, entry: &str, name: &str) -> Result<Dataset> {
        let found = data.group(entry).and_then(|g| g.dataset(name));
        found.map_err(|e| Error::file(&self.path, format!("{entry}/{name}: {e}")))
    }

    /// The start and end of each frame, in seconds.
    fn intervals(&self, data: &Group, entry: &str) -> Result<Vec<(f64, f64)>> {
        let (values, shape) = self.values(&self.dataset(data, entry, "intervals")?, entry)?;
        if shape.len() != 2 || shape[1] != 2 {
            let reason = format!("{entry}/intervals: found shape {shape:?}, expected [frames, 2]");
            return Err(Error::file(&self.path, reason));
        }
        Ok(values.chunks_exact(2).map(|p| (f64::from(p[0]), f64::from(p[1]))).collect())
    }

    /// The values and the shape of a data set.
    fn values(&self, dataset: &Dataset, entry: &str) -> Result<(Vec<f32>, Vec<usize>)> {
        let found =
            to_f32(dataset, &self.path).map_err(|reason| Error::file(&self.path, format!("{entry}: {reason}")))?;
        Ok((found, dataset.shape().iter().map(|s| *s as usize).collect()))
    }
}

/// How many times as large deflate can make its input, rounded up. No filter of such files does more.
const MAX_COMPRESSION: u64 = 1100;

/// Values of any numeric type, as float32, of a data set of the file at `path`.
fn to_f32(dataset: &Dataset, path: &Path) -> std::result::Result<Vec<f32>, String> {
    let values = dataset.shape().iter().try_fold(1u64, |product, size| product.checked_mul(*size));
    let bytes = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    // The reader takes the memory for all of them first.
    if values.is_none_or(|values| values > bytes.saturating_mul(MAX_COMPRESSION)) {
        return Err(format!(
            "found the shape {:?}, expected one that fits into the {bytes} bytes of the file",
            dataset.shape()
        ));
    }
    dataset
        .read_array::<f32>()
        .map(|a| a.iter().copied().collect())
        .or_else(|_| dataset.read_array::<f64>().map(|a| a.iter().map(|v| *v as f32).collect()))
        .or_else(|_| dataset.read_array::<i64>().map(|a| a.iter().map(|v| *v as f32).collect()))
        .or_else(|_| dataset.read_array::<i32>().map(|a| a.iter().map(|v| *v as f32).collect()))
        .map_err(|e| format!("not an array of numbers: {e}"))
}

/// The column of a sequence without a known modality: its own name.
fn own_column(name: &str) -> String {
    name.to_lowercase().chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect()
}

/// The column of a sequence, by the name of the extractor of its features.
fn feature_column(name: &str) -> String {
    let lower = name.to_lowercase();
    let has = |known: &[&str]| known.iter().any(|k| lower.contains(k));
    if has(&["glove", "bert", "word2vec"]) {
        "words".into()
    } else if has(&["covarep", "opensmile", "acoustic"]) {
        "voice".into()
    } else if has(&["facet", "openface", "visual", "face"]) {
        "face".into()
    } else {
        own_column(name)
    }
}

/// The indices of the frames that overlap a time interval.
fn overlapping(frames: &[(f64, f64)], (from, to): (f64, f64)) -> Vec<usize> {
    (0..frames.len()).filter(|n| frames[*n].0 < to && frames[*n].1 > from).collect()
}

/// All sequences but the labels, with the manifest's columns for them.
fn feature_sequences<'a>(all: &'a [Sequence], labels: &Sequence) -> Result<Vec<(String, &'a Sequence, Group)>> {
    let mut others: Vec<(String, &Sequence, Group)> = Vec::new();
    for sequence in all.iter().filter(|s| !std::ptr::eq(*s, labels)) {
        let contains = |known: &[&str]| known.iter().any(|k| sequence.name.to_lowercase().contains(k));
        let is_words = contains(&["words", "transcript"]) && !contains(&["vector", "glove", "bert"]);
        let mut column = if is_words { "text".to_owned() } else { feature_column(&sequence.name) };
        if others.iter().any(|(c, ..)| *c == column) {
            column = own_column(&sequence.name);
        }
        others.push((column, sequence, sequence.data()?));
    }
    Ok(others)
}

/// What an entry has of each sequence: the column, the times of the frames, and the frames.
type EntryFrames<'a> = Vec<(&'a str, Vec<(f64, f64)>, Frames)>;

fn read_entry<'a>(sequences: &'a [(String, &Sequence, Group)], entry: &str) -> Result<EntryFrames<'a>> {
    let mut found = Vec::new();
    for (column, sequence, data) in sequences {
        if data.group(entry).is_err() {
            continue;
        }
        let times = sequence.intervals(data, entry)?;
        let features = sequence.dataset(data, entry, "features")?;
        let frames = if column == "text" {
            let texts = features.read_strings();
            Frames::Words(texts.map_err(|e| Error::file(&sequence.path, format!("{entry}: {e}")))?)
        } else {
            let (values, shape) = sequence.values(&features, entry)?;
            Frames::Features(values, shape.get(1).copied().unwrap_or(1))
        };
        if frames.count() != times.len() {
            let reason = format!("{entry}: found {} frames and {} intervals", frames.count(), times.len());
            return Err(Error::file(&sequence.path, reason));
        }
        found.push((column.as_str(), times, frames));
    }
    Ok(found)
}

/// A row for each labeled interval of each video, with the frames of the other sequences that overlap it.
pub(super) fn labeled_intervals(
    folder: &Path,
    files: &[&PathBuf],
    store: &mut SequenceStore<'_>,
) -> Result<Vec<Value>> {
    let all = files.iter().map(|f| Sequence::open(f)).collect::<Result<Vec<_>>>()?;
    let is_label = |s: &&Sequence| ["label", "sentiment", "opinion"].iter().any(|k| s.name.to_lowercase().contains(k));
    let names = || all.iter().map(|s| s.name.clone()).collect::<Vec<_>>().join(", ");
    let Some(labels) = all.iter().find(is_label) else {
        return Err(Error::file(
            folder,
            format!("found the sequences {}, expected one with labels (CMU_MOSI_Opinion_Labels.csd)", names()),
        ));
    };
    let others = feature_sequences(&all, labels)?;
    let data = labels.data()?;
    let (entries, _) = data.member_names().map_err(|e| Error::file(&labels.path, e.to_string()))?;
    let mut rows = Vec::new();
    for entry in entries {
        let intervals = labels.intervals(&data, &entry)?;
        let (values, shape) = labels.values(&labels.dataset(&data, &entry, "features")?, &entry)?;
        if shape.len() != 2 || shape[0] != intervals.len() || shape[1] == 0 {
            let reason = format!("{entry}: found labels of shape {shape:?} for {} intervals", intervals.len());
            return Err(Error::file(&labels.path, reason));
        }
        let found = read_entry(&others, &entry)?;
        for (number, interval) in intervals.iter().enumerate() {
            let mut row = Map::new();
            let id = if intervals.len() == 1 { entry.clone() } else { format!("{entry}[{number}]") };
            row.insert("id".into(), json!(id));
            row.insert("video".into(), json!(video_of_entry(&entry)));
            row.insert("segment".into(), json!(interval.0));
            // The first label is the sentiment; in CMU-MOSEI six emotions follow.
            row.insert("label".into(), json!(finite(f64::from(values[number * shape[1]]))));
            for (n, name) in EMOTIONS.iter().enumerate().take(shape[1].saturating_sub(1)) {
                row.insert((*name).into(), json!(finite(f64::from(values[number * shape[1] + 1 + n]))));
            }
            for (name, times, frames) in &found {
                let indices = overlapping(times, *interval);
                match frames {
                    Frames::Words(words) => {
                        let spoken: Vec<&str> =
                            indices.iter().map(|n| words[*n].trim_end_matches('\0')).filter(|w| *w != "sp").collect();
                        row.insert("text".into(), json!(spoken.join(" ")));
                    }
                    Frames::Features(values, dim) if !indices.is_empty() && *dim > 0 => {
                        let part: Vec<f32> = indices
                            .iter()
                            .flat_map(|n| &values[n * dim..(n + 1) * dim])
                            .map(|v| if v.is_finite() { *v } else { 0.0 })
                            .collect();
                        row.insert((*name).to_owned(), store.push(name, *dim, &part)?);
                    }
                    Frames::Features(..) => {}
                }
            }
            rows.push(Value::Object(row));
        }
    }
    Ok(rows)
}

const EMOTIONS: [&str; 6] = ["happy", "sad", "anger", "surprise", "disgust", "fear"];

/// The video of an entry. Aligned sequences have an entry for each utterance, such as `video[3]`.
fn video_of_entry(entry: &str) -> &str {
    entry.rsplit_once('[').map_or(entry, |(video, _)| video)
}

/// The frames of one entry.
enum Frames {
    Words(Vec<String>),
    /// The values `[frames, dim]`, and the dim.
    Features(Vec<f32>, usize),
}

impl Frames {
    fn count(&self) -> usize {
        match self {
            Self::Words(words) => words.len(),
            Self::Features(values, dim) => values.len() / (*dim).max(1),
        }
    }
}

/// `X_train.h5` and `y_train.h5`, likewise `valid` and `test`: all modalities concatenated step by step, as the authors
/// of [MFN](https://arxiv.org/abs/1802.00927) (Zadeh et al., 2018) published them.
pub(super) fn aligned_arrays(folder: &Path, store: &mut SequenceStore<'_>) -> Result<Vec<Value>> {
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
            let [dataset] = sets.as_slice() else {
                return Err(bad(format!("found {} arrays, expected one", sets.len())));
            };
            Ok((to_f32(dataset, path).map_err(bad)?, dataset.shape().iter().map(|s| *s as usize).collect()))
        };
        let (values, shape) = open(&path)?;
        let (labels, _) = open(&folder.join(format!("y_{split}.h5")))?;
        let &[count, steps, dim] = shape.as_slice() else {
            return Err(Error::file(&path, format!("found shape {shape:?}, expected [rows, steps, features]")));
        };
        if labels.len() != count {
            return Err(Error::file(
                &path,
                format!("found {count} rows and {} labels, expected as many", labels.len()),
            ));
        }
        for (row, label) in labels.iter().enumerate() {
            let sequence =
                Tensor::from_vec(&values[row * steps * dim..(row + 1) * steps * dim], &[steps as i64, dim as i64])?;
            let id = format!("{split}-{row}");
            let mut out = Map::from_iter([
                ("id".to_owned(), json!(id)),
                ("video".to_owned(), json!(id)),
                ("split".to_owned(), json!(split)),
                ("label".to_owned(), json!(finite(f64::from(*label)))),
            ]);
            if let Some((values, dim)) = trim_padding(&sequence, None)? {
                out.insert("frames".into(), store.push("frames", dim, &values)?);
            }
            rows.push(Value::Object(out));
        }
    }
    if rows.is_empty() {
        return Err(Error::file(folder, "found none of X_train.h5, X_valid.h5 and X_test.h5, expected at least one"));
    }
    Ok(rows)
}
