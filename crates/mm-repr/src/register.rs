//! The encoders of this crate by the `kind` that a config names.

use crate::{
    Pretrained,
    audio::{SpeechTower, SpeechTowerConfig},
    locate,
};
use mm_core::{BuiltEncoder, DType, Registry, config};
use mm_data::{AudioProcessor, AudioProcessorConfig};
use serde::Deserialize;
use std::{path::PathBuf, sync::Arc};

/// A checkpoint folder, used as it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PretrainedSettings {
    /// The folder, relative to the config's; or the name of a model that `cargo xtask models pull` fetched.
    path: PathBuf,
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
        let model = Pretrained::load_on(&locate(&settings.path, &context.base), context.scope.device(), DType::F32)?;
        context.scope.adopt(&model.params);
        Ok(BuiltEncoder {
            processor: model.processor,
            encoder: model.encoder,
            frozen: true,
            fingerprint: model.fingerprint,
        })
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
