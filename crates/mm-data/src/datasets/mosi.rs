//! CMU-MOSI (Zadeh 2016) at the level of utterances: transcripts, and three vectors of each (what was said, how, and how it looked), as
//! the bc-LSTM work (Poria 2017) published them.

use crate::{Error, Result, read_npy};
use mm_core::Tensor;
use serde_json::{Value, json};
use std::path::Path;

/// Rows of the folder's `utterances.csv` and of the arrays beside it.
pub(super) fn rows(folder: &Path) -> Result<Vec<Value>> {
    let table = folder.join("utterances.csv");
    let bad = |reason: String| Error::file(&table, reason);
    let mut reader = csv::Reader::from_path(&table).map_err(|e| bad(e.to_string()))?;
    let head = reader.headers().map_err(|e| bad(e.to_string()))?.clone();
    let column = |name: &str| {
        head.iter().position(|h| h == name).ok_or_else(|| bad(format!("no column `{name}`; found {head:?}")))
    };
    let [id, video, segment, split, label, transcript] =
        ["id", "video", "segment", "split", "label", "transcript"].map(column);
    let (id, video, segment, split, label, transcript) = (id?, video?, segment?, split?, label?, transcript?);
    let mut arrays = Vec::new();
    for (name, file) in [("words", "text.npy"), ("voice", "audio.npy"), ("face", "video.npy")] {
        let path = folder.join(file);
        let array = read_npy(&path)?;
        if array.rank() != 2 {
            return Err(Error::file(path, format!("found shape {:?}, wanted [utterances, width]", array.shape())));
        }
        arrays.push((name, path, array));
    }
    let mut rows = Vec::new();
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(|e| bad(e.to_string()))?;
        let cell = |place: usize| record.get(place).unwrap_or_default();
        let mut row = json!({
            "id": cell(id), "video": cell(video), "segment": cell(segment), "split": cell(split), "label": cell(label), "text": cell(transcript),
        });
        for (name, path, array) in &arrays {
            if number as i64 >= array.size(0)? {
                let reason =
                    format!("found {} rows, wanted one for each of the table's, which are more", array.size(0)?);
                return Err(Error::file(path, reason));
            }
            row[*name] = vector(&array.select(0, number as i64)?)?;
        }
        rows.push(row);
    }
    Ok(rows)
}

fn vector(x: &Tensor) -> Result<Value> {
    Ok(json!(x.to_vec::<f32>()?))
}
