//! The encoders of this crate by the `kind` that a config names.

use crate::{
    LoadOptions, Pretrained,
    audio::{SpeechTower, SpeechTowerConfig},
    locate,
};
use mm_core::{BuiltEncoder, Modality, Registry, config};
use mm_data::{AudioProcessor, AudioProcessorConfig};
use serde::Deserialize;
use std::{path::PathBuf, sync::Arc};

/// A checkpoint folder, used as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PretrainedSettings {
    /// The folder, relative to the config's; or the name of a model that `cargo xtask models pull` fetched.
    path: PathBuf,
    /// Which modality of a model that takes several; its first when absent.
    #[serde(default)]
    modality: Option<Modality>,
}

/// A spectrogram and the tower on it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpeechSettings {
    processor: AudioProcessorConfig,
    #[serde(default)]
    tower: SpeechTowerConfig,
}

/// Adds `pretrained` (any folder that [`Pretrained`] loads) and `speech` (a tower that learns speech from nothing).
pub fn register(registry: &mut Registry) {
    registry.encoder("pretrained", |settings, context| {
        let settings: PretrainedSettings = config::parse(settings, &context.field)?;
        let options = LoadOptions { device: context.scope.device(), ..LoadOptions::default() };
        let model = Pretrained::load_with(&locate(&settings.path, &context.base), options)?;
        let (tower, params, fingerprint) = model.into_tower(settings.modality.as_ref())?;
        context.scope.adopt(&params);
        Ok(BuiltEncoder { processor: tower.processor, encoder: tower.encoder, frozen: true, fingerprint })
    });
    registry.encoder("speech", |settings, context| {
        let settings: SpeechSettings = config::parse(settings, &context.field)?;
        let bands = settings.processor.mel.bands as i64;
        let processor = AudioProcessor::new(settings.processor)?;
        let encoder = SpeechTower::new(&context.scope, bands, &settings.tower)?;
        Ok(BuiltEncoder {
            processor: Arc::new(processor),
            encoder: Box::new(encoder),
            frozen: false,
            fingerprint: String::new(),
        })
    });
}
