//! EfficientNet and EfficientNet-Lite (no squeeze-and-excitation, ReLU6, stem and head that are not scaled), under the
//! names of transformers, timm, and the `efficientnet_pytorch` packages. Batch normalizations are folded into the
//! convolutions.
//!
//! *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks* (Tan, Le, 2019),
//! <https://arxiv.org/abs/1905.11946>.

mod config;
mod network;
mod timm;

use crate::{family::Family, image::preprocess::preprocessing};

/// The families of this module.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "efficientnet",
        weight_map: |c, _| config::weight_map(c),
        build: |b| network::build(b, &config::architecture(b)?, preprocessing(b)?),
    },
    Family { model_type: "timm/efficientnet", weight_map: |c, _| timm::weight_map(c), build: timm::build },
];
