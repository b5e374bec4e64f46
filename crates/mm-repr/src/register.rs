//! The encoders of this crate by the `kind` that a config names.

use crate::{
    LoadOptions, ModelPaths, Pretrained,
    audio::{AudioCnn, AudioCnnConfig},
    family::{ConcatLayers, Pooled},
    image::{CnnEncoder, CnnEncoderConfig, CnnProcessor},
    text::{
        LstmEncoder, LstmEncoderConfig, TfidfConfig, TfidfProcessor, WordDropout, WordIdProcessor, read_normalized_text,
    },
    vector::{IdentityEncoder, VectorProcessor},
    video::{FramesEncoder, FramesProcessor},
    word2vec::{Weighting, WordVectors, WordVectorsEncoder, WordVectorsProcessor},
};
use mm_core::{
    BuildContext, BuiltEncoder, Encoder, EncoderFactory, Error, Modality, Pooling, Processor, Registry, Result, Source,
    config,
};
use mm_data::{AudioProcessor, AudioProcessorConfig, decode::Transparency};
use serde::Deserialize;
use std::{path::PathBuf, sync::Arc};

/// Maximum number of TF-IDF terms taken from training texts.
const MAX_TERMS: usize = 3000;
/// Maximum vocabulary of an LSTM encoder taken from training texts.
const MAX_VOCABULARY: usize = 20_000;

/// Registers the encoders `pretrained` (any folder that [`Pretrained`] loads), `word_vectors` (weighted mean of a
/// text's word vectors), `tfidf`, `vector` (given vectors), `frames` (a video by an image encoder), and the encoders
/// trained from scratch `lstm` (text), `cnn` (images) and `audio_cnn`; and the default encoder of each modality.
pub fn register(registry: &mut Registry) {
    crate::propose::register(registry);
    registry.register_encoder("pretrained", pretrained);
    registry.register_encoder("word_vectors", word_vectors);
    registry.register_factory("tfidf", TfidfFactory);
    registry.register_factory("lstm", LstmFactory);
    registry.register_encoder("cnn", cnn);
    registry.register_encoder("audio_cnn", audio_cnn);
    registry.register_encoder("vector", vector);
    registry.register_encoder("frames", frames);
}

/// The values that are readable texts.
fn texts<'a>(values: &'a [&Source]) -> Vec<std::borrow::Cow<'a, str>> {
    values.iter().filter_map(|v| read_normalized_text(v).ok()).collect()
}

/// An encoder that is trained.
fn trainable(processor: impl Processor + 'static, encoder: impl Encoder + 'static) -> BuiltEncoder {
    BuiltEncoder {
        processor: Arc::new(processor),
        encoder: Box::new(encoder),
        frozen: false,
        fingerprint: String::new(),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PretrainedSettings {
    /// The folder, relative to the config's; or the name of a model that `mm models pull` fetched.
    path: PathBuf,
    /// Which modality of a model with several; the first if absent.
    #[serde(default)]
    modality: Option<Modality>,
    /// Use these layers' hidden states, concatenated; 0 is the input of the first block.
    #[serde(default)]
    layers: Vec<usize>,
    /// Pooling of the features into one vector (mean, cls, max or last); that of the family if absent.
    #[serde(default)]
    pooling: Option<Pooling>,
    /// Number of blocks, from the last, that are trained; none if absent.
    #[serde(default)]
    trainable_layers: Option<usize>,
    /// Rate at which tokens of a text are dropped while training; for a frozen encoder, in the additional `views` of
    /// each text.
    #[serde(default)]
    word_dropout: f64,
    /// How transparent pixels are converted: `ignore` drops the alpha channel, as the reference programs do (the
    /// default); `blend` lays the image over white.
    #[serde(default)]
    transparency: Option<Transparency>,
}

fn pretrained(settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
    let settings: PretrainedSettings = config::parse(settings, &context.field)?;
    let trainable_layers = settings.trainable_layers;
    let options = LoadOptions {
        device: context.scope.device(),
        trainable_layers,
        transparency: settings.transparency,
        stays_loaded: context.scope.is_decode_mode(),
        ..LoadOptions::default()
    };
    let model = Pretrained::load_with(&ModelPaths::locate(&settings.path, &context.base_dir)?, options)?;
    let (tower, params, mut fingerprint) = model.into_tower(settings.modality.as_ref())?;
    context.scope.merge(&params);
    let encoder: Box<dyn Encoder> = if settings.layers.is_empty() {
        tower.encoder
    } else {
        fingerprint = format!("{fingerprint} layers {:?}", settings.layers);
        Box::new(ConcatLayers::new(tower.encoder, settings.layers))
    };
    let encoder = match settings.pooling {
        Some(pooling) => {
            fingerprint = format!("{fingerprint} pooling {pooling:?}");
            Box::new(Pooled::new(encoder, pooling))
        }
        None => encoder,
    };
    let processor = match settings.word_dropout {
        0.0 => tower.processor,
        rate => Arc::new(WordDropout::new(tower.processor, rate)?),
    };
    Ok(BuiltEncoder { processor, encoder, frozen: trainable_layers.is_none(), fingerprint })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WordVectorsSettings {
    /// A file of vectors (word2vec's text or binary format, fastText's .bin), relative to the config's folder.
    path: PathBuf,
    /// Weight of each word.
    #[serde(default)]
    weighting: Weighting,
}

fn word_vectors(settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
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
}

/// TF-IDF; its terms are derived from the training texts where the config leaves them out.
struct TfidfFactory;

impl EncoderFactory for TfidfFactory {
    fn build(&self, settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
        let processor = TfidfProcessor::new(config::parse(settings, &context.field)?)?;
        let encoder = IdentityEncoder { dim: processor.num_terms(), modality: Modality::TEXT };
        Ok(trainable(processor, encoder))
    }

    fn derived_setting(&self) -> Option<&str> {
        Some("terms")
    }

    fn derive(&self, values: &[&Source]) -> Result<toml::Value> {
        let texts = texts(values);
        Ok(toml::Value::from(TfidfConfig::fit(texts.iter().map(AsRef::as_ref), MAX_TERMS).terms))
    }
}

/// An LSTM over words; its vocabulary is derived from the training texts where the config leaves it out.
struct LstmFactory;

impl EncoderFactory for LstmFactory {
    fn build(&self, settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
        let settings: LstmEncoderConfig = config::parse(settings, &context.field)?;
        Ok(trainable(WordIdProcessor::new(&settings), LstmEncoder::new(&context.scope, &settings)?))
    }

    fn derived_setting(&self) -> Option<&str> {
        Some("vocabulary")
    }

    fn derive(&self, values: &[&Source]) -> Result<toml::Value> {
        let texts = texts(values);
        Ok(toml::Value::from(LstmEncoderConfig::vocabulary(texts.iter().map(AsRef::as_ref), MAX_VOCABULARY)))
    }
}

fn cnn(settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
    let settings: CnnEncoderConfig = config::parse(settings, &context.field)?;
    Ok(trainable(CnnProcessor::new(&settings)?, CnnEncoder::new(&context.scope, &settings)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AudioCnnSettings {
    processor: AudioProcessorConfig,
    #[serde(default)]
    network: AudioCnnConfig,
}

fn audio_cnn(settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
    let settings: AudioCnnSettings = config::parse(settings, &context.field)?;
    let bands = settings.processor.mel.n_mels as i64;
    let processor = AudioProcessor::new(settings.processor)?;
    Ok(trainable(processor, AudioCnn::new(&context.scope, bands, &settings.network)?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VectorSettings {
    /// Dimension of the vectors.
    dim: usize,
    /// Maximum number of steps of values that are sequences; without it, the mean of the steps is used.
    #[serde(default)]
    max_steps: Option<usize>,
    /// The modality, if it is not the one that the config names the encoder for.
    #[serde(default)]
    modality: Option<Modality>,
}

/// The modality in the path of an encoder's settings, `….MODALITY.encoder`.
fn modality_of(field: &str) -> Modality {
    let mut parts = field.rsplit('.');
    let last = parts.next().unwrap_or_default();
    Modality::from(if last == "encoder" { parts.next().unwrap_or("vector") } else { last })
}

fn vector(settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
    let settings: VectorSettings = config::parse(settings, &context.field)?;
    if settings.dim == 0 {
        return Err(Error::config(format!("{}.dim", context.field), 0, "at least 1"));
    }
    let modality = settings.modality.unwrap_or_else(|| modality_of(&context.field));
    let processor = VectorProcessor::new(settings.dim).with_max_steps(settings.max_steps);
    Ok(trainable(processor, IdentityEncoder { dim: settings.dim as i64, modality }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FramesSettings {
    /// Number of frames, evenly spaced.
    num_frames: usize,
    /// The image encoder.
    encoder: toml::Value,
}

fn frames(settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
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
}
