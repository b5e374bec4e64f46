//! Predictions as files.

use super::RowPrediction;
use crate::{Error, Result};
use mm_core::{Modality, checkpoint};
use parquet::{
    data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
    file::{
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::parser::parse_message_type,
};
use serde_json::Value;
use std::{path::Path, sync::Arc};

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

/// The prediction as text.
fn prediction_text(prediction: &RowPrediction) -> String {
    let value: &Value = &prediction.prediction;
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The modalities of a row as text.
fn present_text(prediction: &RowPrediction) -> String {
    prediction.present.iter().map(Modality::name).collect::<Vec<_>>().join(";")
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

/// Columns before the probabilities: row, id, present, prediction.
const FIXED_COLUMNS: usize = 4;

fn parquet_bytes(predictions: &[RowPrediction], classes: &[&String]) -> parquet::errors::Result<Vec<u8>> {
    let is_regression = classes.is_empty();
    // Names of Parquet columns are restricted.
    let name = |class: &String| -> String {
        class.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '_' }).collect()
    };
    let mut fields = String::from("required int64 row; required binary id (UTF8); required binary present (UTF8);");
    fields.push_str(if is_regression { "required double prediction;" } else { "required binary prediction (UTF8);" });
    for (index, class) in classes.iter().enumerate() {
        fields.push_str(&format!("required double p{index}_{};", name(class)));
    }
    let schema = Arc::new(parse_message_type(&format!("message predictions {{ {fields} }}"))?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(WriterProperties::default()))?;
    let mut group = writer.next_row_group()?;
    let mut index = 0;
    while let Some(mut column) = group.next_column()? {
        match index {
            0 => write_integers(&mut column, predictions.iter().map(|p| p.row as i64).collect())?,
            1 => write_texts(&mut column, predictions.iter().map(|p| p.id.clone()))?,
            2 => write_texts(&mut column, predictions.iter().map(present_text))?,
            3 if is_regression => {
                let value = |p: &RowPrediction| p.prediction.as_f64().unwrap_or(f64::NAN);
                write_doubles(&mut column, predictions.iter().map(value).collect())?;
            }
            3 => write_texts(&mut column, predictions.iter().map(prediction_text))?,
            _ => {
                let value = |p: &RowPrediction| p.probabilities[index - FIXED_COLUMNS].1;
                write_doubles(&mut column, predictions.iter().map(value).collect())?;
            }
        }
        column.close()?;
        index += 1;
    }
    group.close()?;
    writer.into_inner()
}

fn write_texts(
    column: &mut SerializedColumnWriter<'_>,
    texts: impl Iterator<Item = String>,
) -> parquet::errors::Result<()> {
    let values: Vec<ByteArray> = texts.map(|text| ByteArray::from(text.into_bytes())).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).map(drop)
}

fn write_doubles(column: &mut SerializedColumnWriter<'_>, values: Vec<f64>) -> parquet::errors::Result<()> {
    column.typed::<DoubleType>().write_batch(&values, None, None).map(drop)
}

fn write_integers(column: &mut SerializedColumnWriter<'_>, values: Vec<i64>) -> parquet::errors::Result<()> {
    column.typed::<Int64Type>().write_batch(&values, None, None).map(drop)
}
