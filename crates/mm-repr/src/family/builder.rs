//! The context in which a family builds its model.

use super::config::{num_labels, without_nulls};
use crate::{Error, Result, json::read_json};
use mm_core::{
    Checkpoint, Scope,
    nn::{Transformer, TransformerConfig},
};
use mm_data::decode::Transparency;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{cell::Cell, path::Path};

/// Config, checkpoint and parameter scope of the model being built.
pub struct ModelBuilder<'a> {
    /// Checkpoint folder.
    pub folder: &'a Path,
    /// Folder of the tokenizer.
    pub tokenizer_folder: &'a Path,
    /// The `config.json`.
    pub config: &'a Value,
    /// Names and shapes of its tensors.
    pub checkpoint: &'a Checkpoint,
    /// Scope of the parameters; frozen unless the model is fine-tuned.
    pub scope: Scope<'a>,
    /// Number of blocks to keep ([`super::LoadOptions::layer`]).
    pub layer: Option<i64>,
    /// How transparent pixels are converted ([`super::LoadOptions::transparency`]).
    pub transparency: Transparency,
    /// Whether a transformer was built, which `layer` can truncate.
    pub(super) has_transformer: Cell<bool>,
}

impl ModelBuilder<'_> {
    /// Parses the config as a family's struct; fields that it does not have are ignored.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        self.parse_part(self.config, "")
    }

    /// Parses a part of the config, such as `text_config`; `field` names it in errors.
    pub fn parse_part<T: DeserializeOwned>(&self, value: &Value, field: &str) -> Result<T> {
        self.parse_with_defaults(value, field, &Value::Null)
    }

    /// Parses a part of the config; fields that it lacks are taken from the JSON object `defaults`, then from `T`'s own
    /// defaults.
    pub fn parse_with_defaults<T: DeserializeOwned>(&self, value: &Value, field: &str, defaults: &Value) -> Result<T> {
        let mut merged = defaults.as_object().cloned().unwrap_or_default();
        let merged = match without_nulls(value) {
            Value::Null => Value::Object(merged),
            Value::Object(fields) => {
                merged.extend(fields);
                Value::Object(merged)
            }
            other => other,
        };
        let location = if field.is_empty() { String::new() } else { format!("{field}: ") };
        serde_json::from_value(merged).map_err(|e| self.config_error(format!("{location}{e}")))
    }

    /// Reads a JSON file of the folder; `Null` if it does not exist.
    pub fn json(&self, name: &str) -> Result<Value> {
        read_json(&self.folder.join(name))
    }

    /// A builder for a part of the model that has a config of its own.
    pub fn part<'b>(&'b self, config: &'b Value) -> ModelBuilder<'b> {
        let (folder, tokenizer_folder) = (self.folder, self.tokenizer_folder);
        let (checkpoint, scope) = (self.checkpoint, self.scope.clone());
        ModelBuilder {
            folder,
            tokenizer_folder,
            config,
            checkpoint,
            scope,
            layer: self.layer,
            transparency: self.transparency,
            has_transformer: Cell::new(false),
        }
    }

    /// Builds a transformer, truncated at the requested layer; a truncated one has no final norm.
    pub fn transformer(&self, scope: &Scope<'_>, config: TransformerConfig) -> Result<Transformer> {
        self.has_transformer.set(true);
        let Some(layer) = self.layer else { return Ok(Transformer::new(scope, &config)?) };
        let count = if layer < 0 { config.num_layers + 1 + layer } else { layer };
        if count < 0 || count > config.num_layers {
            let expected = format!("at most the {} layers", config.num_layers);
            return Err(mm_core::Error::config("--layer", layer, expected).into());
        }
        let final_norm = config.final_norm && count == config.num_layers;
        Ok(Transformer::new(scope, &TransformerConfig { num_layers: count, final_norm, ..config })?)
    }

    /// Number of classes in the config.
    pub fn num_labels(&self) -> i64 {
        num_labels(self.config)
    }

    /// An error about `config.json`.
    pub fn config_error(&self, reason: impl Into<mm_core::Cause>) -> Error {
        Error::folder(self.folder.join("config.json"), reason)
    }
}
