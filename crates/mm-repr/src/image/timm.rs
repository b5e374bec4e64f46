//! Recognizing timm's folders, and reading sizes from the shapes of their weights.

use crate::{Result, family::ModelBuilder};
use serde_json::Value;

/// The supported architectures, for errors.
pub(crate) const TIMM_ARCHITECTURES: [&str; 7] =
    ["vit_…", "deit_…", "resnetN", "wide_resnetN_2", "resnextN_GxWd", "convnext…", "efficientnet_…"];

/// The model type of a timm `config.json`, by its `architecture`; `None` for other folders and unsupported
/// architectures.
pub(crate) fn timm_model_type(config: &Value) -> Option<&'static str> {
    let name = config["architecture"].as_str()?;
    let starts_with_any = |prefixes: &[&str]| prefixes.iter().any(|s| name.starts_with(s));
    Some(if starts_with_any(&["vit_", "deit_", "deit3_"]) {
        "timm/vision_transformer"
    } else if starts_with_any(&["resnet", "wide_resnet", "resnext"]) {
        "timm/resnet"
    } else if starts_with_any(&["convnext"]) {
        "timm/convnext"
    } else if starts_with_any(&["efficientnet_", "tf_efficientnet_"]) {
        "timm/efficientnet"
    } else {
        return None;
    })
}

/// The folder's `architecture`.
pub(super) fn architecture<'a>(b: &'a ModelBuilder<'_>) -> &'a str {
    b.config["architecture"].as_str().unwrap_or_default()
}

/// An error about an architecture that would load and compute something else.
pub(super) fn unsupported(b: &ModelBuilder<'_>, expected: &str) -> crate::Error {
    b.config_error(format!("architecture: `{}` is not supported; expected {expected}", architecture(b)))
}

/// Refuses settings of `model_args` that change what the weights compute, other than those in `known`.
pub(super) fn check_model_args(b: &ModelBuilder<'_>, known: &[&str]) -> Result<()> {
    // Sizes of the input and of the head, dropout, and how the weights are made.
    const HARMLESS: [&str; 12] = [
        "num_classes",
        "in_chans",
        "global_pool",
        "img_size",
        "drop_rate",
        "drop_path_rate",
        "proj_drop_rate",
        "attn_drop_rate",
        "pretrained",
        "dynamic_img_size",
        "strict_img_size",
        "output_stride",
    ];
    let Some(args) = b.config["model_args"].as_object() else { return Ok(()) };
    let is_set = |(_, value): &(&String, &Value)| !value.is_null() && **value != false;
    let mut unknown = args.iter().filter(is_set).map(|(key, _)| key.as_str());
    match unknown.find(|key| !HARMLESS.contains(key) && !known.contains(key)) {
        Some(key) => {
            let value = &args[key];
            Err(b.config_error(format!("model_args.{key}: found {value}; this setting of timm is not supported")))
        }
        None => Ok(()),
    }
}

/// Shape of a tensor that must have `N` dimensions.
pub(super) fn shape<const N: usize>(b: &ModelBuilder<'_>, name: &str) -> Result<[i64; N]> {
    let found = b.checkpoint.shape(name).ok_or_else(|| b.config_error(format!("the weights lack {name}")))?;
    found.try_into().map_err(|_| b.config_error(format!("{name}: found shape {found:?}, expected {N} dimensions")))
}
