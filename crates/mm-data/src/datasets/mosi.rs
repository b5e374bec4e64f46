//! CMU-MOSI at the level of utterances: transcripts, and a text, an audio and a visual feature vector of each.
//!
//! The data set: [*MOSI: Multimodal Corpus of Sentiment Intensity*](https://arxiv.org/abs/1606.06259) (Zadeh et al.,
//! 2016). The features: [*Context-Dependent Sentiment Analysis in User-Generated
//! Videos*](https://aclanthology.org/P17-1081) (bc-LSTM; Poria et al., 2017).

use super::{DatasetReader, multimodal_sentiment, write_manifest};
use crate::{Error, Result, read_npy};
use mm_core::Tensor;
use serde_json::{Value, json};
use std::path::Path;

pub(super) const READER: DatasetReader = DatasetReader {
    name: "mosi",
    description: "CMU-MOSI: utterances of opinion videos as transcripts and text, audio and visual features (bc-LSTM's arrays, or as \
                  for mosei)",
    prepare: |folder, manifest| {
        let is_table = folder.join("utterances.csv").exists();
        let rows = if is_table { rows(folder)? } else { multimodal_sentiment::rows(folder, manifest)? };
        write_manifest(manifest, &rows)
    },
};

/// The rows of the folder's `utterances.csv`, with the lines of `text.npy`, `audio.npy` and `video.npy`.
fn rows(folder: &Path) -> Result<Vec<Value>> {
    let table = folder.join("utterances.csv");
    let bad = |reason: String| Error::file(&table, reason);
    let mut reader = csv::Reader::from_path(&table).map_err(|e| bad(e.to_string()))?;
    let header = reader.headers().map_err(|e| bad(e.to_string()))?.clone();
    let column = |name: &str| {
        header.iter().position(|h| h == name).ok_or_else(|| bad(format!("no column `{name}`; found {header:?}")))
    };
    let [id, video, segment, split, label, transcript] =
        ["id", "video", "segment", "split", "label", "transcript"].map(column);
    let (id, video, segment, split, label, transcript) = (id?, video?, segment?, split?, label?, transcript?);
    let mut arrays = Vec::new();
    for (name, file) in [("words", "text.npy"), ("voice", "audio.npy"), ("face", "video.npy")] {
        let path = folder.join(file);
        let array = read_npy(&path)?;
        if array.rank() != 2 {
            return Err(Error::file(path, format!("found shape {:?}, expected [utterances, features]", array.shape())));
        }
        arrays.push((name, path, array));
    }
    let mut rows = Vec::new();
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(|e| bad(e.to_string()))?;
        let cell = |index: usize| record.get(index).unwrap_or_default();
        let mut row = json!({
            "id": cell(id), "video": cell(video), "segment": cell(segment), "split": cell(split), "label": cell(label),
            "text": cell(transcript),
        });
        for (name, path, array) in &arrays {
            if number as i64 >= array.size(0)? {
                let reason = format!("found {} rows, expected one for each row of utterances.csv", array.size(0)?);
                return Err(Error::file(path, reason));
            }
            row[*name] = to_json(&array.select(0, number as i64)?)?;
        }
        rows.push(row);
    }
    Ok(rows)
}

fn to_json(vector: &Tensor) -> Result<Value> {
    Ok(json!(vector.to_vec::<f32>()?))
}
