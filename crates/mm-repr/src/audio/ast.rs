//! The Audio Spectrogram Transformer: a distilled vision transformer on overlapping patches of a spectrogram.
//!
//! *AST: Audio Spectrogram Transformer* (Gong, Chung, Glass, 2021), <https://arxiv.org/abs/2104.01778>.

use super::spectrogram::SpectrogramProcessor;
use crate::{
    Result, checkpoint_config,
    family::{Family, Model, ModelBuilder, Tower},
    image::vit::{
        ClassifierPooling, PositionInterpolation, SizePair, VitConfig, VitModel, VitVariant, build_backbone,
        classifiers, vit_block, vit_weight_map,
    },
};
use mm_core::{
    Modality,
    nn::{Norm, NormConfig},
};

/// The family of this file.
pub(crate) const FAMILIES: &[Family] = &[Family {
    model_type: "audio-spectrogram-transformer",
    weight_map: |c, _| vit_weight_map(c, &["audio_spectrogram_transformer.", ""]),
    build,
}];

checkpoint_config! {
    /// Fields of transformers' `ASTConfig` that [`VitConfig`] does not have.
    AstConfig {
        num_mel_bins: i64 = 128,
        max_length: i64 = 1024,
        frequency_stride: i64 = 10,
        time_stride: i64 = 10,
    }
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let (mut config, spectrogram): (VitConfig, AstConfig) = (b.parse()?, b.parse()?);
    config.image_size = SizePair::Rectangle(spectrogram.num_mel_bins, spectrogram.max_length);
    config.num_channels = 1;
    let variant = VitVariant {
        stride: Some([spectrogram.frequency_stride, spectrogram.time_stride]),
        modality: Modality::AUDIO,
        interpolation: PositionInterpolation::Disabled,
        ..VitVariant::image(&["cls_token", "distillation_token"])
    };
    let backbone = build_backbone(b, &config, variant, vit_block(&config))?;
    let classifiers = classifiers(b, &["classifier.dense"], config.hidden_size)?;
    let norm = NormConfig { eps: config.layer_norm_eps, ..NormConfig::default() };
    let norm = (!classifiers.is_empty())
        .then(|| Norm::new(&b.scope.pp("classifier").pp("layernorm"), config.hidden_size, norm))
        .transpose()?;
    let network = VitModel {
        backbone,
        embedding_pooling: None,
        classifier_pooling: ClassifierPooling::MeanOfTwoTokens,
        norm,
        classifiers,
    };
    Ok(Tower::new(SpectrogramProcessor::ast(b)?, network).into())
}
