//! Predictions as files.

use super::{
    RowPrediction,
    parquet::parquet_bytes,
    text::{prediction_text, present_text},
};
use crate::{Error, Result};
use mm_core::checkpoint;
use std::path::Path;

/// Writes predictions as .parquet, .csv or .jsonl.
///
/// # Errors
/// When the file name has another extension, or the file cannot be written.
pub fn write_predictions(out: &Path, predictions: &[RowPrediction]) -> Result<()> {
    let classes: Vec<&String> =
        predictions.first().map(|p| p.probabilities.iter().map(|(class, _)| class).collect()).unwrap_or_default();
    let bytes = match out.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "jsonl" => predictions.iter().map(|p| p.to_json().to_string() + "\n").collect::<String>().into_bytes(),
        "csv" => csv_bytes(predictions, &classes).map_err(|e| Error::file(out, e))?,
        "parquet" => parquet_bytes(predictions, &classes).map_err(|e| Error::file(out, e))?,
        other => {
            let reason = format!("found the extension `{other}`, expected .parquet, .csv or .jsonl");
            return Err(Error::file(out, reason));
        }
    };
    Ok(checkpoint::write_atomic(out, &bytes)?)
}

fn csv_bytes(predictions: &[RowPrediction], classes: &[&String]) -> std::result::Result<Vec<u8>, String> {
    let failed = |e: csv::Error| e.to_string();
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = ["row", "id", "prediction", "present"].map(ToOwned::to_owned);
    let header = header.into_iter().chain(classes.iter().map(|c| format!("p({c})")));
    writer.write_record(header.collect::<Vec<_>>()).map_err(failed)?;
    for row in predictions {
        let cells = [row.row.to_string(), row.id.clone(), prediction_text(row), present_text(row)];
        let cells = cells.into_iter().chain(row.probabilities.iter().map(|p| p.1.to_string()));
        writer.write_record(cells.collect::<Vec<_>>()).map_err(failed)?;
    }
    writer.into_inner().map_err(|e| e.to_string())
}
