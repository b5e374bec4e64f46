//! ViT and DeiT, which adds a distillation token.
//!
//! *Training data-efficient image transformers & distillation through attention* (Touvron et al., 2020),
//! <https://arxiv.org/abs/2012.12877>.

use super::{
    backbone::{VitBackbone, VitVariant, build_backbone},
    config::{VitConfig, classifiers, vit_block},
    pooling::{ClassifierPooling, VitModel},
    weight_map::vit_weight_map,
};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Tower},
    image::preprocess::preprocessing,
};
use mm_data::ImageProcessor;

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family { model_type: "vit", weight_map: |c, _| vit_weight_map(c, &["vit.", ""]), build: |b| build(b, false) },
    Family { model_type: "deit", weight_map: |c, _| vit_weight_map(c, &["deit.", ""]), build: |b| build(b, true) },
];

/// ViT's backbone, or DeiT's if `distilled`, under `backbone` of the builder's scope.
pub fn vit_backbone(b: &ModelBuilder<'_>, distilled: bool) -> Result<VitBackbone> {
    let config: VitConfig = b.parse()?;
    let tokens: &[&str] = if distilled { &["cls_token", "distillation_token"] } else { &["cls_token"] };
    build_backbone(b, &config, VitVariant::image(tokens), vit_block(&config))
}

fn build(b: &ModelBuilder<'_>, distilled: bool) -> Result<Model> {
    let backbone = vit_backbone(b, distilled)?;
    let both = ["cls_classifier", "distillation_classifier"];
    let two_classifiers = b.scope.pp(both[0]).has("weight");
    let names: &[&str] = if two_classifiers { &both } else { &["classifier"] };
    let network = VitModel {
        classifiers: classifiers(b, names, backbone.embed_dim)?,
        backbone,
        embedding_pooling: Some(ClassifierPooling::ClassToken),
        classifier_pooling: if two_classifiers {
            ClassifierPooling::TwoClassifiers
        } else {
            ClassifierPooling::ClassToken
        },
        norm: None,
    };
    Ok(Tower::new(ImageProcessor::new(preprocessing(b)?), network).into())
}
