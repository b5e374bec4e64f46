//! Adapters of a model that is being built.

use super::LoraConfig;
use crate::{Result, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The adapter of one layer: `scale · (x · Aᵀ) · Bᵀ`.
pub(crate) struct LoraPair {
    /// `[rank, in_features]`.
    a: Tensor,
    /// `[out_features, rank]`.
    b: Tensor,
    scale: f64,
}

impl LoraPair {
    pub(crate) fn forward(&self, input: &Tensor) -> Result<Tensor> {
        input.linear(&self.a, None)?.linear(&self.b, None)?.mul_scalar(self.scale)
    }
}

/// Adapters that a model is built with.
pub(crate) struct LoraPlan {
    pub(crate) config: LoraConfig,
    /// The A matrices by layer of the checkpoint; chunks of one layer share it.
    pub(crate) shared_a: BTreeMap<String, Tensor>,
    /// Layers of the checkpoint that have an adapter, and whether their weights are stored transposed.
    pub(crate) layers: BTreeMap<String, bool>,
}

impl LoraPlan {
    pub(crate) fn new(config: LoraConfig) -> Self {
        Self { config, shared_a: BTreeMap::new(), layers: BTreeMap::new() }
    }

    pub(crate) fn pair(&self, a: Tensor, b: Tensor) -> LoraPair {
        LoraPair { a, b, scale: self.config.scale() }
    }

    /// PEFT's `adapter_config.json`.
    pub(crate) fn peft_config(&self, base_model: &str, modules_to_save: &[String]) -> Value {
        let mut target_modules = self.config.target_modules.clone();
        if target_modules.is_empty() {
            target_modules = self.layers.keys().cloned().collect();
        }
        json!({
            "peft_type": "LORA", "task_type": null, "base_model_name_or_path": base_model, "inference_mode": true,
            "r": self.config.rank, "lora_alpha": self.config.alpha(), "lora_dropout": 0.0, "bias": "none",
            "target_modules": target_modules, "use_rslora": self.config.use_rslora, "use_dora": false,
            "fan_in_fan_out": self.layers.values().any(|t| *t), "init_lora_weights": true, "rank_pattern": {},
            "alpha_pattern": {},
            "modules_to_save": if modules_to_save.is_empty() { Value::Null } else { json!(modules_to_save) },
        })
    }
}
