//! DINOv2, with and without register tokens.
//!
//! *DINOv2: Learning Robust Visual Features without Supervision* (Oquab et al., 2023),
//! <https://arxiv.org/abs/2304.07193>; *Vision Transformers Need Registers* (Darcet et al., 2023),
//! <https://arxiv.org/abs/2309.16588>.

use super::{
    preprocess::preprocessing,
    vit::{
        ClassifierPooling, PositionInterpolation, VitConfig, VitModel, VitVariant, build_backbone, classifiers,
        vit_block, vit_weight_map,
    },
};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Tower, WeightMap},
};
use mm_core::{Checkpoint, nn::Activation};
use mm_data::ImageProcessor;
use serde_json::json;

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family { model_type: "dinov2", weight_map: |c, _| weight_map(c, "dinov2."), build: |b| build(b, false) },
    Family {
        model_type: "dinov2_with_registers",
        weight_map: |c, _| weight_map(c, "dinov2_with_registers."),
        build: |b| build(b, true),
    },
];

fn weight_map(checkpoint: &Checkpoint, prefix: &str) -> WeightMap {
    let map = vit_weight_map(checkpoint, &[prefix, ""]);
    let any = |part: &str| checkpoint.names().any(|n| n.contains(part));
    if any(".mlp.weights_in.") {
        return map.and(&[
            (".mlp.fc1.", ".mlp.weights_in.#0/2"),
            (".mlp.gate.", ".mlp.weights_in.#1/2"),
            (".mlp.fc2.", ".mlp.weights_out."),
        ]);
    }
    if any(".mlp.gate_proj.") {
        return map.and(&[
            (".mlp.fc1.", ".mlp.gate_proj."),
            (".mlp.gate.", ".mlp.up_proj."),
            (".mlp.fc2.", ".mlp.down_proj."),
        ]);
    }
    map
}

fn build(b: &ModelBuilder<'_>, with_registers: bool) -> Result<Model> {
    let config: VitConfig = b.parse_with_defaults(b.config, "", &json!({"layer_norm_eps": 1e-6}))?;
    let hidden_dim = (config.hidden_size as f64 * config.mlp_ratio) as i64;
    let mut block = vit_block(&config);
    block.layer_scale = Some(1.0);
    block.mlp.hidden_dim = hidden_dim;
    if config.use_swiglu_ffn {
        block.mlp.hidden_dim = ((hidden_dim as f64 * 2.0 / 3.0) as i64 + 7) / 8 * 8;
        block.mlp.gated = true;
        block.mlp.activation = Activation::Silu;
    }
    let registers = with_registers.then_some(config.num_register_tokens);
    let interpolation =
        if with_registers { PositionInterpolation::AntialiasedBicubic } else { PositionInterpolation::Bicubic };
    let variant = VitVariant { registers, interpolation, ..VitVariant::image(&["cls_token"]) };
    let backbone = build_backbone(b, &config, variant, block)?;
    let network = VitModel {
        classifiers: classifiers(b, &["classifier"], 2 * config.hidden_size)?,
        backbone,
        // transformers' `pooler_output`, and what the paper's retrieval and nearest neighbors use.
        embedding_pooling: Some(ClassifierPooling::ClassToken),
        classifier_pooling: ClassifierPooling::ClassTokenAndMean(1 + registers.unwrap_or(0)),
        norm: None,
    };
    Ok(Tower::new(ImageProcessor::new(preprocessing(b)?), network).into())
}
