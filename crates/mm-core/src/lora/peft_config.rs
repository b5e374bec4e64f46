//! `adapter_config.json` as PEFT writes it: the settings that matter for merging, and those that are refused.

use super::{ADAPTER_CONFIG, has_suffix, scale};
use crate::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What an initialization took from the base weights, which an adapter of its kind is a change from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BaseChange {
    /// Nothing.
    None,
    /// The largest singular values and vectors, as many as the rank: *PiSSA: Principal Singular Values and Singular
    /// Vectors Adaptation of Large Language Models* (Meng et al., 2024), <https://arxiv.org/abs/2404.02948>.
    Pissa,
    /// The first columns of Q and rows of R of a QR decomposition, times the scale: *OLoRA: Orthonormal Low-Rank
    /// Adaptation of Large Language Models* (Büyükakyüz, 2024), <https://arxiv.org/abs/2406.01775>.
    Olora,
}

/// The settings of an adapter.
#[derive(Debug)]
pub(super) struct PeftConfig {
    file: PathBuf,
    pub(super) base_model: Option<String>,
    alpha: f64,
    use_rslora: bool,
    /// Scales of layers by their name or its end, in the order of the file.
    alpha_pattern: Vec<(String, f64)>,
    pub(super) base_change: BaseChange,
    /// Names of layers that were trained in full.
    pub(super) modules_to_save: Vec<String>,
}

/// Settings that are applied, or that leave the values of a trained adapter as they are: how it was trained,
/// initialized and named (PEFT 0.21). `velora_config` changes the backward pass alone; what the sub-configs of
/// initializations did to the base weights follows from `init_lora_weights`.
const KNOWN: [&str; 31] = [
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
    "velora_config",
];

/// Settings that change what an adapter computes and are not supported, when they are neither absent, empty nor false.
const REFUSED: [&str; 11] = [
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

impl PeftConfig {
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(ADAPTER_CONFIG);
        let text = std::fs::read_to_string(&file).map_err(|e| Error::file(&file, e))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| Error::file(&file, e))?;
        Self::parse(&json, &file).map_err(|reason| Error::file(file, reason))
    }

    fn parse(json: &Value, file: &Path) -> Result<Self, String> {
        match json["peft_type"].as_str() {
            Some("LORA") => {}
            other => {
                let found = other.unwrap_or("nothing");
                return Err(format!("peft_type: found {found}, expected LORA, the supported kind"));
            }
        }
        check_settings(json, file)?;
        let text = |key: &str| json[key].as_str().map(ToOwned::to_owned);
        let modules = json["modules_to_save"].as_array().into_iter().flatten();
        Ok(Self {
            file: file.to_owned(),
            base_model: text("base_model_name_or_path"),
            alpha: json["lora_alpha"].as_f64().unwrap_or(8.0),
            use_rslora: json["use_rslora"] == true,
            alpha_pattern: alpha_pattern(&json["alpha_pattern"])?,
            base_change: base_change(&json["init_lora_weights"])?,
            modules_to_save: modules.filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
        })
    }

    /// The factor of the product of a module's matrices.
    pub(super) fn scale(&self, module: &str, rank: i64) -> f64 {
        let matches = |pattern: &str| match pattern.strip_prefix('^') {
            Some(whole) => module == whole,
            None => has_suffix(module, pattern),
        };
        let alpha = self.alpha_pattern.iter().find(|(pattern, _)| matches(pattern)).map(|(_, alpha)| *alpha);
        scale(alpha.unwrap_or(self.alpha), rank, self.use_rslora)
    }

    /// An error about the file.
    pub(super) fn error(&self, reason: &str) -> Error {
        Error::file(&self.file, reason)
    }
}

/// Refuses settings that change what the adapter computes and are not supported, and those that mm does not know: of
/// them, false, empty values and numbers (the default of a size, say) are no reason to.
fn check_settings(json: &Value, file: &Path) -> Result<(), String> {
    for (key, value) in json.as_object().into_iter().flatten().filter(|(_, value)| is_set(value)) {
        let is_unknown = !KNOWN.contains(&key.as_str());
        if REFUSED.contains(&key.as_str()) {
            return Err(format!("{key}: found {value}, which mm does not support"));
        }
        if is_unknown && value.is_number() {
            tracing::warn!("{}: {key}: found {value}, a setting that mm does not know; it is ignored", file.display());
        } else if is_unknown {
            return Err(format!(
                "{key}: found {value}, a setting that mm does not know and that may change what the adapter computes; \
                 expected one of PEFT 0.21, or null. Merge the adapter with PEFT's `merge_and_unload` and load the result"
            ));
        }
    }
    Ok(())
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

/// The scales of single layers. PEFT takes the keys for regular expressions; those that are more than names, `^` and
/// `$` are refused.
fn alpha_pattern(value: &Value) -> Result<Vec<(String, f64)>, String> {
    let mut patterns = Vec::new();
    for (key, alpha) in value.as_object().into_iter().flatten() {
        let name = key.strip_suffix('$').unwrap_or(key);
        let plain = name.strip_prefix('^').unwrap_or(name).replace("\\.", ".");
        if plain.contains(['^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '\\']) {
            return Err(format!("alpha_pattern: found the regular expression `{key}`, expected names of layers"));
        }
        let alpha = alpha.as_f64().ok_or_else(|| format!("alpha_pattern.{key}: found {alpha}, expected a number"))?;
        patterns.push((if name.starts_with('^') { format!("^{plain}") } else { plain }, alpha));
    }
    Ok(patterns)
}

/// What the initialization took from the base weights. EVA initializes the first matrix only.
fn base_change(init: &Value) -> Result<BaseChange, String> {
    match init {
        Value::Null | Value::Bool(_) => Ok(BaseChange::None),
        Value::String(name) => match name.to_lowercase().as_str() {
            "gaussian" | "orthogonal" | "eva" | "true" | "false" => Ok(BaseChange::None),
            "pissa" => Ok(BaseChange::Pissa),
            "olora" => Ok(BaseChange::Olora),
            _ => Err(format!(
                "init_lora_weights: found {name}, which changed the base weights in a way that mm cannot repeat; expected \
                 true, gaussian, orthogonal, eva, pissa or olora: convert the adapter with PEFT's \
                 `save_pretrained(…, path_initial_model_for_weight_conversion=…)`"
            )),
        },
        other => Err(format!("init_lora_weights: found {other}, expected true, false or a name")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(fields: Value) -> Result<PeftConfig, String> {
        let mut config = json!({"peft_type": "LORA", "lora_alpha": 6.0});
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        PeftConfig::parse(&config, Path::new("adapter_config.json"))
    }

    #[test]
    fn initializations_that_change_the_base_weights_are_known_or_refused_by_name() {
        for (init, expected) in [
            (json!(true), BaseChange::None),
            (json!("gaussian"), BaseChange::None),
            (json!("eva"), BaseChange::None),
            (json!("pissa"), BaseChange::Pissa),
            (json!("olora"), BaseChange::Olora),
        ] {
            assert_eq!(parse(json!({"init_lora_weights": init})).unwrap().base_change, expected);
        }
        for init in ["pissa_niter_16", "corda", "loftq", "lora_ga", "something-new"] {
            let error = parse(json!({"init_lora_weights": init})).unwrap_err();
            assert!(error.contains(&format!("init_lora_weights: found {init}")), "{error}");
        }
    }

    #[test]
    fn settings_that_are_not_applied_are_refused_by_name() {
        assert!(parse(json!({"lora_bias": false, "layer_replication": null, "target_parameters": []})).is_ok());
        for (key, value) in [
            ("lora_bias", json!(true)),
            ("layer_replication", json!([[0, 2]])),
            ("use_qalora", json!(true)),
            ("kasa_config", json!({"beta": 0.0001, "gamma": 0.001})),
            ("use_something_newer", json!(true)),
            ("something_newer_config", json!({"kind": "new"})),
            ("variant", json!("new")),
        ] {
            let error = parse(json!({ key: value })).unwrap_err();
            assert!(error.starts_with(&format!("{key}: found ")), "{error}");
        }
    }

    #[test]
    fn settings_without_an_effect_on_the_values_are_accepted() {
        // VeLoRA compresses activations for the backward pass; the forward pass is LoRA's.
        let velora = json!({"num_groups": 64, "scale": 1.0, "init_type": "batch_average_once"});
        assert!(parse(json!({"velora_config": velora, "kasa_config": null, "qalora_group_size": 16})).is_ok());
        assert!(parse(json!({"use_something_newer": false, "something_newer_config": {}, "a_newer_size": 3})).is_ok());
    }

    #[test]
    fn scales_of_single_layers_are_found_by_name_and_regular_expressions_are_refused() {
        let config = parse(json!({"alpha_pattern": {"q_proj": 2.0, "^model.layers.1.v_proj$": 4.0}})).unwrap();
        assert_eq!(config.scale("model.layers.0.q_proj", 2), 1.0);
        assert_eq!(config.scale("model.layers.1.v_proj", 2), 2.0);
        assert_eq!(config.scale("other.model.layers.1.v_proj", 2), 3.0);
        assert!(parse(json!({"alpha_pattern": {"layers.[01].q_proj": 2.0}})).unwrap_err().contains("layers.[01]"));
    }
}
