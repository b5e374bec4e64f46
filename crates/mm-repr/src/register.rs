//! The encoders of this crate by the `kind` that a config names.

use crate::{
    LoadOptions, Pretrained,
    audio::{AudioCnn, AudioCnnConfig},
    family::ConcatLayers,
    image::{CnnEncoder, CnnEncoderConfig, CnnProcessor},
    locate,
    text::{LstmEncoder, LstmEncoderConfig, TfidfConfig, TfidfProcessor, WordDropout, WordIdProcessor},
    vector::{IdentityEncoder, VectorProcessor},
    video::{FramesEncoder, FramesProcessor},
    word2vec::{Weighting, WordVectors, WordVectorsEncoder, WordVectorsProcessor},
};
use mm_core::{BuildContext, BuiltEncoder, Encoder, Modality, Processor, Registry, config};
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
    /// The means of these layers side by side instead of the model's own vector; 0 is what goes into the first.
    #[serde(default)]
    layers: Vec<usize>,
    /// So many of its last blocks go on learning; none when absent.
    #[serde(default)]
    trainable_layers: Option<usize>,
    /// While training: the rate at which tokens of a text are left out. Of a frozen encoder, in `views` of each text.
    #[serde(default)]
    word_dropout: f64,
}

/// Vectors of words, used as they are.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WordVectorsSettings {
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
    network: AudioCnnConfig,
}

/// Numbers as they stand in the manifest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorSettings {
    dim: usize,
    /// Most steps of a value, where it has several and the order matters; their mean counts when absent.
    #[serde(default)]
    max_steps: Option<usize>,
    /// The modality's name, where it is another than the tower's in the config.
    #[serde(default)]
    modality: Option<Modality>,
}

/// Some frames of a video, each through a picture encoder.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FramesSettings {
    num_frames: usize,
    encoder: toml::Value,
}

/// The last part of the dotted path of a tower's settings is `encoder`; the one before it the tower's modality.
fn modality_of(field: &str) -> Modality {
    let mut parts = field.rsplit('.');
    let last = parts.next().unwrap_or_default();
    Modality::from(if last == "encoder" { parts.next().unwrap_or("vector") } else { last })
}

/// Adds `pretrained` (any folder that [`Pretrained`] loads), `word_vectors` (the mean of a text's word vectors), `bag` (which words a text has),
/// `vector` (lists of numbers), `frames` (a video by a picture encoder), and networks that learn from nothing: `reader` (words), `speech`,
/// `picture`. Also how
/// each modality is read where nobody says.
pub fn register(registry: &mut Registry) {
    crate::propose::register(registry);
    registry.register_encoder("vector", |settings, context| {
        let settings: VectorSettings = config::parse(settings, &context.field)?;
        if settings.dim == 0 {
            return Err(mm_core::Error::config(format!("{}.dim", context.field), 0, "at least 1"));
        }
        let modality = settings.modality.unwrap_or_else(|| modality_of(&context.field));
        Ok(BuiltEncoder {
            processor: Arc::new(VectorProcessor::new(settings.dim).in_steps(settings.max_steps)),
            encoder: Box::new(IdentityEncoder { width: settings.dim as i64, modality }),
            frozen: false,
            fingerprint: String::new(),
        })
    });
    registry.register_encoder("tfidf", |settings, context| {
        let bag = TfidfProcessor::new(config::parse(settings, &context.field)?)?;
        let encoder = IdentityEncoder { width: bag.dim(), modality: Modality::TEXT };
        Ok(BuiltEncoder {
            processor: Arc::new(bag),
            encoder: Box::new(encoder),
            frozen: false,
            fingerprint: String::new(),
        })
    });
    registry.register_completer("tfidf", "terms", |values| {
        let texts: Vec<_> = values.iter().filter_map(|v| crate::text::read(v).ok()).collect();
        Ok(toml::Value::from(TfidfConfig::fit(texts.iter().map(AsRef::as_ref), 3000).terms))
    });
    registry.register_encoder("lstm", |settings, context| {
        let settings: LstmEncoderConfig = config::parse(settings, &context.field)?;
        Ok(BuiltEncoder {
            processor: Arc::new(WordIdProcessor::new(&settings)),
            encoder: Box::new(LstmEncoder::new(&context.scope, &settings)?),
            frozen: false,
            fingerprint: String::new(),
        })
    });
    registry.register_completer("lstm", "vocabulary", |values| {
        let texts: Vec<_> = values.iter().filter_map(|v| crate::text::read(v).ok()).collect();
        let words = LstmEncoderConfig::vocabulary(texts.iter().map(AsRef::as_ref), 20_000);
        Ok(toml::Value::from(words))
    });
    registry.register_encoder("cnn", |settings, context| {
        let settings: CnnEncoderConfig = config::parse(settings, &context.field)?;
        let processor = CnnProcessor::new(&settings)?;
        Ok(BuiltEncoder {
            processor: Arc::new(processor),
            encoder: Box::new(CnnEncoder::new(&context.scope, &settings)?),
            frozen: false,
            fingerprint: String::new(),
        })
    });
    registry.register_encoder("frames", |settings, context| {
        let settings: FramesSettings = config::parse(settings, &context.field)?;
        let inner = BuildContext {
            scope: context.scope.clone(),
            base_dir: context.base_dir.clone(),
            field: format!("{}.encoder", context.field),
            registry: context.registry,
        };
        let built = context.registry.build(&settings.encoder, &inner)?;
        let fingerprint = format!("{} frames {}", settings.num_frames, built.fingerprint);
        Ok(BuiltEncoder {
            processor: Arc::new(FramesProcessor::new(settings.num_frames, built.processor)?),
            encoder: Box::new(FramesEncoder::new(built.encoder)?),
            frozen: built.frozen,
            fingerprint,
        })
    });
    registry.register_encoder("pretrained", |settings, context| {
        let settings: PretrainedSettings = config::parse(settings, &context.field)?;
        let options = LoadOptions {
            device: context.scope.device(),
            trainable_layers: settings.trainable_layers,
            ..LoadOptions::default()
        };
        let model = Pretrained::load_with(&locate(&settings.path, &context.base_dir), options)?;
        let (tower, params, fingerprint) = model.into_tower(settings.modality.as_ref())?;
        context.scope.merge(&params);
        let (encoder, fingerprint): (Box<dyn Encoder>, String) = if settings.layers.is_empty() {
            (tower.encoder, fingerprint)
        } else {
            let fingerprint = format!("{fingerprint} layers {:?}", settings.layers);
            (Box::new(ConcatLayers::new(tower.encoder, settings.layers)), fingerprint)
        };
        let processor = match settings.word_dropout {
            0.0 => tower.processor,
            rate => Arc::new(WordDropout::new(tower.processor, rate)?),
        };
        Ok(BuiltEncoder { processor, encoder, frozen: settings.trainable_layers.is_none(), fingerprint })
    });
    registry.register_encoder("word_vectors", |settings, context| {
        let settings: WordVectorsSettings = config::parse(settings, &context.field)?;
        let path = context.base_dir.join(&settings.path);
        let words = WordVectors::load(&path)?;
        let mut hasher = blake3::Hasher::new();
        let hashed = std::fs::File::open(&path).and_then(|f| hasher.update_reader(f).map(drop));
        hashed.map_err(|e| crate::Error::folder(&path, e))?;
        let fingerprint = hasher.finalize().to_hex()[..32].to_owned();
        let encoder = WordVectorsEncoder::new(words.vector_size);
        let processor = WordVectorsProcessor::new(Arc::new(words), settings.weighting, &fingerprint);
        let fingerprint = processor.fingerprint();
        Ok(BuiltEncoder { processor: Arc::new(processor), encoder: Box::new(encoder), frozen: true, fingerprint })
    });
    registry.register_encoder("audio_cnn", |settings, context| {
        let settings: SpeechSettings = config::parse(settings, &context.field)?;
        let bands = settings.processor.mel.n_mels as i64;
        let processor = AudioProcessor::new(settings.processor)?;
        let encoder = AudioCnn::new(&context.scope, bands, &settings.network)?;
        Ok(BuiltEncoder {
            processor: Arc::new(processor),
            encoder: Box::new(encoder),
            frozen: false,
            fingerprint: String::new(),
        })
    });
}
