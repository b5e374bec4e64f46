//! The config of a fit.

use super::options::FitOptions;
use crate::{Error, Result};
use mm_data::ColumnBinding;
use serde_json::json;
use std::{collections::BTreeMap, path::Path};

/// At most about this many validation rows are taken from the training table.
const MAX_VALIDATION_ROWS: f64 = 5000.0;

/// The training table and what was found in it.
pub(super) struct TableInfo<'a> {
    /// The absolute path.
    pub(super) path: &'a Path,
    /// The absolute path of the validation table.
    pub(super) validation: Option<&'a Path>,
    /// The columns of each modality.
    pub(super) columns: &'a BTreeMap<String, Vec<String>>,
    /// Number of rows.
    pub(super) rows: usize,
    /// The column of row ids; empty for none.
    pub(super) id_column: &'a str,
    /// The columns whose equal values stay in one split.
    pub(super) group: Option<ColumnBinding>,
}

fn binding(modality: &str, columns: &[String]) -> ColumnBinding {
    match columns {
        [column] if modality != "tabular" => ColumnBinding::Single(column.clone()),
        columns => ColumnBinding::Multiple(columns.to_vec()),
    }
}

/// The config of a fit, to be resolved from the data.
pub(super) fn fit_config(options: &FitOptions, table: &TableInfo<'_>) -> Result<toml::Value> {
    let rows = table.rows.max(1);
    let batch_size = match table.rows {
        0..400 => 16,
        400..20_000 => 32,
        _ => 128,
    };
    let epochs = (options.preset.num_batches() * batch_size / rows).clamp(3, 60);
    let is_multimodal = table.columns.len() > 1;
    let modalities: BTreeMap<&String, ColumnBinding> =
        table.columns.iter().map(|(modality, columns)| (modality, binding(modality, columns))).collect();
    let inputs: BTreeMap<&String, serde_json::Value> =
        table.columns.keys().map(|modality| (modality, json!({"dropout": 0.2}))).collect();
    let id = if table.validation.is_some() { "" } else { table.id_column };
    let mut value = json!({
        "task": "prediction",
        "label": options.label_column,
        "problem": options.problem,
        "data": {
            "manifest": table.path, "valid": table.validation,
            "encoding": options.encoding, "missing_values": options.missing_values, "fetch_urls": options.fetch_urls,
            "columns": {"modalities": modalities, "id": id},
            "split": {
                "group": table.group, "test": options.test_fraction,
                "valid": (MAX_VALIDATION_ROWS / rows as f64).min(0.2), "seed": options.seed,
            },
        },
        // The first of several captions and images; of several recordings, a random one each time.
        "loader": {"batch_size": batch_size, "always_first_source": ["text", "image", "video"]},
        "dropout": 0.3,
        "inputs": inputs,
        "fusion": {"dim": 128, "dropout": 0.2, "modality_dropout": if is_multimodal { 0.25 } else { 0.0 }},
        "loss": {"unimodal_weight": if is_multimodal { 1.0 } else { 0.0 }, "label_smoothing": 0.02},
        "train": {
            "epochs": epochs, "evaluate_every_epochs": 1, "early_stopping": {"patience": (epochs / 3).max(4)},
            "ema_decay": 0.98, "log_every_steps": 20,
            "optimizer": {"lr": 1e-3, "weight_decay": 0.05},
            "schedule": {"warmup_ratio": 0.05},
        },
    });
    // TOML has no null.
    for pointer in ["/data", "/data/split"] {
        if let Some(table) = value.pointer_mut(pointer).and_then(serde_json::Value::as_object_mut) {
            table.retain(|_, v| !v.is_null());
        }
    }
    toml::Value::try_from(value).map_err(|e| Error::Config(format!("the config of the fit is not valid TOML: {e}")))
}
