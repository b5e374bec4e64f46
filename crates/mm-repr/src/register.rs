//! The encoders of this crate by the `kind` that a config names.

use crate::{
    LoadOptions, Pretrained,
    audio::{SpeechTower, SpeechTowerConfig},
    locate,
    words::{Weighting, Words, WordsEncoder, WordsProcessor},
};
use mm_core::{BuiltEncoder, Modality, Processor, Registry, config};
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

/// Vectors of words, used as they are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WordsSettings {
    /// A file of vectors (word2vec's text or binary, fastText's .bin), relative to the config's folder.
    path: PathBuf,
    /// How much each word counts.
    #[serde(default)]
    weighting: Weighting,
}

/// A spectrogram and the tower on it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SpeechSettings {
    processor: AudioProcessorConfig,
    #[serde(default)]
    tower: SpeechTowerConfig,
}

/// Adds `pretrained` (any folder that [`Pretrained`] loads), `words` (the mean of a text's word vectors) and `speech` (a tower that
/// learns speech from nothing).
pub fn register(registry: &mut Registry) {
    registry.encoder("pretrained", |settings, context| {
        let settings: PretrainedSettings = config::parse(settings, &context.field)?;
        let options = LoadOptions { device: context.scope.device(), ..LoadOptions::default() };
        let model = Pretrained::load_with(&locate(&settings.path, &context.base), options)?;
        let (tower, params, fingerprint) = model.into_tower(settings.modality.as_ref())?;
        context.scope.adopt(&params);
        Ok(BuiltEncoder { processor: tower.processor, encoder: tower.encoder, frozen: true, fingerprint })
    });
    registry.encoder("words", |settings, context| {
        let settings: WordsSettings = config::parse(settings, &context.field)?;
        let path = context.base.join(&settings.path);
        let words = Words::read(&path)?;
        let mut hasher = blake3::Hasher::new();
        let hashed = std::fs::File::open(&path).and_then(|f| hasher.update_reader(f).map(drop));
        hashed.map_err(|e| crate::Error::folder(&path, e))?;
        let fingerprint = hasher.finalize().to_hex()[..32].to_owned();
        let encoder = WordsEncoder::new(words.width);
        let processor = WordsProcessor::new(Arc::new(words), settings.weighting, &fingerprint);
        let fingerprint = processor.fingerprint();
        Ok(BuiltEncoder { processor: Arc::new(processor), encoder: Box::new(encoder), frozen: true, fingerprint })
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
