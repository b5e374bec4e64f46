//! Predictions as Parquet.

use super::{
    RowPrediction,
    text::{prediction_text, present_text},
};
use parquet::{
    data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::Result,
    file::{
        properties::WriterProperties,
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::parser::parse_message_type,
};
use std::sync::Arc;

/// Columns before the probabilities: row, id, present, prediction.
const FIXED_COLUMNS: usize = 4;

/// The predictions as a Parquet file.
pub(super) fn parquet_bytes(predictions: &[RowPrediction], classes: &[&String]) -> Result<Vec<u8>> {
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

fn write_texts(column: &mut SerializedColumnWriter<'_>, texts: impl Iterator<Item = String>) -> Result<()> {
    let values: Vec<ByteArray> = texts.map(|text| ByteArray::from(text.into_bytes())).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).map(drop)
}

fn write_doubles(column: &mut SerializedColumnWriter<'_>, values: Vec<f64>) -> Result<()> {
    column.typed::<DoubleType>().write_batch(&values, None, None).map(drop)
}

fn write_integers(column: &mut SerializedColumnWriter<'_>, values: Vec<i64>) -> Result<()> {
    column.typed::<Int64Type>().write_batch(&values, None, None).map(drop)
}
