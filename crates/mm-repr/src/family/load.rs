//! Loading a checkpoint folder as a model of a known family.

use super::{builder::ModelBuilder, fingerprint::Fingerprint, model::Family};
use crate::{ModelPaths, Result};
use mm_core::{DType, Device, LoraConfig, Params, Role};
use mm_data::decode::Transparency;
use serde_json::Value;
use std::cell::Cell;

/// Options for loading a checkpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct LoadOptions {
    /// Device of the weights.
    pub device: Device,
    /// Type that the weights are converted to.
    pub dtype: DType,
    /// Keep only the first `layer` blocks and no projection after them, for the features of that layer. 0 is the input
    /// of the first block; negative values count from the end.
    pub layer: Option<i64>,
    /// Number of blocks, counted from the last, whose weights are trainable (transformers only); none if absent.
    pub trainable_layers: Option<usize>,
    /// How transparent pixels of images are converted. If absent, the alpha channel is dropped, as transformers, timm
    /// and open_clip do by Pillow's `convert("RGB")`.
    pub transparency: Option<Transparency>,
    /// For a model that stays loaded: weights are packed for the processor at their first use, however small the input,
    /// so that those of the checkpoint are not in memory as well. Otherwise inputs of at most 64 rows (tokens, patches)
    /// use the weights as they are.
    pub stays_loaded: bool,
}

/// A loaded model.
pub struct Loaded<M> {
    /// The model.
    pub model: M,
    /// The weights.
    pub params: Params,
    /// Names in the checkpoint that the model does not use.
    pub unexpected_keys: Vec<String>,
    /// What the model's outputs depend on.
    pub fingerprint: Fingerprint,
}

/// Buffers that checkpoints store although they follow from the config.
const IGNORED_BUFFERS: [&str; 5] =
    ["num_batches_tracked", "position_ids", "token_type_ids", "relative_position_index", "masked_spec_embed"];

/// Options for fine-tuning: which parameters are trained.
#[derive(Debug, Clone, Default)]
pub struct FineTuneOptions {
    /// Trains low-rank adapters only; without them, all weights are trained.
    pub adapter: Option<LoraConfig>,
    /// Prefixes of checkpoint names whose tensors are reinitialized and trained in full, such as a head for other
    /// labels.
    pub reinitialized: Vec<String>,
}

/// Loads a model with frozen weights (but for [`LoadOptions::trainable_layers`]).
///
/// # Errors
/// If a weight is missing or has another shape, or the config does not fit the family.
pub fn load<M>(paths: &ModelPaths, config: &Value, family: &Family<M>, options: LoadOptions) -> Result<Loaded<M>> {
    load_for_fine_tuning(paths, config, family, options, None)
}

/// Loads a model whose weights, or whose low-rank adapters, are trainable; frozen if `fine_tune` is `None`.
///
/// # Errors
/// Those of [`load`]; also if no layer matches `adapter.target_modules`.
pub fn load_for_fine_tuning<M>(
    paths: &ModelPaths,
    config: &Value,
    family: &Family<M>,
    options: LoadOptions,
    fine_tune: Option<&FineTuneOptions>,
) -> Result<Loaded<M>> {
    let (checkpoint, config) = paths.checkpoint_and_config(config)?;
    let config = &config;
    let names = checkpoint.clone();
    let over_white = if options.transparency == Some(Transparency::Blend) { " over white" } else { "" };
    let relevant = format!("{:?}{:?}{over_white}", options.dtype, options.layer);
    let fingerprint = Fingerprint::new(config, paths, checkpoint.path(), relevant);
    let map = (family.weight_map)(&names, config);
    let params = Params::from_checkpoint(checkpoint, options.device, options.dtype, move |n| map.apply(n));
    if let Some(fine_tune) = fine_tune {
        params.reinitialize(&fine_tune.reinitialized);
        fine_tune.adapter.clone().map(|a| params.add_adapters(a)).transpose()?;
    }
    let trainable = options.trainable_layers.is_some() || fine_tune.is_some();
    let scope = if trainable { params.scope() } else { params.scope().frozen() };
    let scope = if options.stays_loaded { scope.decode_mode() } else { scope };
    let builder = ModelBuilder {
        folder: &paths.files,
        tokenizer_folder: &paths.tokenizer,
        config,
        checkpoint: &names,
        scope,
        layer: options.layer,
        transparency: options.transparency.unwrap_or(Transparency::Ignore),
        has_transformer: Cell::new(false),
    };
    let model = (family.build)(&builder)?;
    if options.layer.is_some() && !builder.has_transformer.get() {
        let reason = format!("`{}` is not a stack of equal blocks, so --layer cannot be used", family.model_type);
        return Err(builder.config_error(reason));
    }
    if let Some(count) = options.trainable_layers {
        freeze_first_blocks(&builder, &params, family.model_type, count)?;
    }
    if let Some((fine_tune, adapter)) = fine_tune.and_then(|f| Some((f, f.adapter.as_ref()?))) {
        if params.num_adapters() == 0 {
            let targets = adapter.target_modules.join(", ");
            let reason = format!("adapter.target_modules: no layer of `{}` matches {targets}", family.model_type);
            return Err(builder.config_error(reason));
        }
        params.freeze_except_adapters(&fine_tune.reinitialized)?;
    }
    let ignored = |name: &String| IGNORED_BUFFERS.iter().any(|b| name.ends_with(b));
    let unexpected_keys: Vec<String> = params.finish()?.into_iter().filter(|n| !ignored(n)).collect();
    if family.model_type.starts_with("timm/") && options.layer.is_none() && !unexpected_keys.is_empty() {
        // timm has hundreds of variants of an architecture: what is left over would have changed the outputs.
        let (count, names) = (unexpected_keys.len(), unexpected_keys[..unexpected_keys.len().min(3)].join(", "));
        let reason = format!("architecture: {count} of its tensors ({names} …) do not occur in mm's implementation");
        return Err(builder.config_error(reason));
    }
    Ok(Loaded { model, params, unexpected_keys, fingerprint })
}

/// Freezes all parameters but those of the last `count` blocks.
fn freeze_first_blocks(builder: &ModelBuilder<'_>, params: &Params, model_type: &str, count: usize) -> Result<()> {
    let blocks = params.named(&[Role::Trainable]).iter().filter_map(|(n, _)| block_index(n)).max();
    let usable = blocks.filter(|_| builder.has_transformer.get() && count > 0).map(|b| b + 1);
    let blocks = usable.ok_or_else(|| {
        let expected = "expected a stack of equal blocks, and at least one of them";
        builder.config_error(format!("`{model_type}` with trainable_layers = {count}: {expected}"))
    })?;
    Ok(params.freeze(|name| block_index(name).is_none_or(|b| b + count < blocks))?)
}

/// Index of the block that a parameter belongs to.
fn block_index(name: &str) -> Option<usize> {
    let mut parts = name.split('.');
    parts.find(|p| *p == "layers")?;
    parts.next()?.parse().ok()
}
