//! Recognizing timm's folders.

use serde_json::Value;

/// The supported architectures, for errors.
pub(crate) const TIMM_ARCHITECTURES: [&str; 5] = ["vit_…", "deit_…", "resnet…", "convnext…", "efficientnet_…"];

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
