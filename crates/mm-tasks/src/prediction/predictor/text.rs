//! Predictions as text, for cells of a table.

use super::RowPrediction;
use mm_core::Modality;
use serde_json::Value;

/// The prediction as text.
pub(super) fn prediction_text(prediction: &RowPrediction) -> String {
    let value: &Value = &prediction.prediction;
    value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)
}

/// The modalities of a row as text.
pub(super) fn present_text(prediction: &RowPrediction) -> String {
    prediction.present.iter().map(Modality::name).collect::<Vec<_>>().join(";")
}
