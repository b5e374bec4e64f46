//! Inputs of a learner: raw value → tensor of a fixed shape, by the `kind` in a config.

mod processors;

pub use processors::decode_chars;

use super::spec::{InputSpec, ValueType};
use crate::{text::read_normalized_text, vector::VectorProcessor};
use mm_core::{BuildContext, Encoder, Error, Processor, Registry, Result, Source};
use mm_data::{
    AudioProcessor, AudioProcessorConfig, ImageProcessor, ImageProcessorConfig,
    transform::{ImageTransform, Resize},
};
use processors::{BagOfWords, Characters, FixedLengthSpectrogram, NUM_SPECIAL_TOKENS, tokenize_words};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
    sync::Arc,
};

/// How the values of one modality become tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum InputConfig {
    /// Image files as `[3, image_size, image_size]` with pixels in [0, 1].
    Image {
        /// Height and width in pixels.
        image_size: i64,
    },
    /// Audio files as spectrograms `[1, num_frames, n_mels]`, truncated or padded with their minimum.
    Spectrogram {
        /// Number of frames.
        num_frames: i64,
        /// The spectrogram.
        processor: AudioProcessorConfig,
    },
    /// Vectors in the manifest.
    Vector {
        /// Dimension.
        dim: i64,
    },
    /// Texts as binary bags of words.
    BagOfWords {
        /// Size of the vocabulary: the most frequent words of the training texts.
        #[serde(default = "default_max_features")]
        max_features: usize,
        /// Minimum number of training texts with a word.
        #[serde(default = "default_min_df")]
        min_df: usize,
        /// The words; fitted to the training texts when empty.
        #[serde(default)]
        vocabulary: Vec<String>,
    },
    /// Texts as sequences of character ids.
    Characters {
        /// Length of the sequences, including the start and end tokens.
        max_length: usize,
        /// Minimum number of training texts with a character.
        #[serde(default = "default_min_df")]
        min_df: usize,
        /// The characters; fitted to the training texts when empty.
        #[serde(default)]
        alphabet: String,
    },
    /// Vectors of a frozen encoder.
    Features {
        /// The encoder, by its `kind`.
        encoder: toml::Value,
    },
}

fn default_max_features() -> usize {
    1000
}

fn default_min_df() -> usize {
    2
}

/// A built input.
pub struct BuiltInput {
    /// Raw value → tensor; with an encoder, its processor.
    pub processor: Arc<dyn Processor>,
    /// Shape and type of the values.
    pub spec: InputSpec,
    /// The frozen encoder and a fingerprint of its vectors.
    pub encoder: Option<(Box<dyn Encoder>, String)>,
}

/// The number of texts that have each term.
fn document_frequencies<'a, T: Hash + Ord>(
    texts: impl Iterator<Item = &'a Source>,
    terms: impl Fn(&str) -> Vec<T>,
) -> Result<HashMap<T, usize>> {
    let mut counts = HashMap::new();
    for source in texts {
        let mut terms = terms(&read_normalized_text(source)?);
        terms.sort_unstable();
        terms.dedup();
        terms.into_iter().for_each(|term| *counts.entry(term).or_default() += 1);
    }
    Ok(counts)
}

impl InputConfig {
    /// Fits an empty vocabulary or alphabet to the training texts.
    ///
    /// # Errors
    /// A source is not text, or no word or character occurs in `min_df` texts.
    pub fn fit<'a>(&mut self, texts: impl Iterator<Item = &'a Source>) -> Result<()> {
        match self {
            Self::BagOfWords { max_features, min_df, vocabulary } if vocabulary.is_empty() => {
                let counts = document_frequencies(texts, tokenize_words)?;
                let mut frequent: Vec<(String, usize)> = counts.into_iter().filter(|(_, c)| c >= min_df).collect();
                frequent.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
                *vocabulary = frequent.into_iter().take(*max_features).map(|(word, _)| word).collect();
                if vocabulary.is_empty() {
                    let expected = format!("words that occur in at least {min_df} training texts (min_df)");
                    return Err(Error::config("inputs.bag_of_words.vocabulary", "no word", expected));
                }
            }
            Self::Characters { min_df, alphabet, .. } if alphabet.is_empty() => {
                let counts = document_frequencies(texts, |text| text.chars().collect())?;
                let counts: BTreeMap<char, usize> = counts.into_iter().collect();
                *alphabet = counts.into_iter().filter(|(_, c)| c >= min_df).map(|(c, _)| c).collect();
                if alphabet.is_empty() {
                    let expected = format!("characters that occur in at least {min_df} training texts (min_df)");
                    return Err(Error::config("inputs.characters.alphabet", "no character", expected));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Builds an input.
///
/// # Errors
/// A setting is out of range, or an encoder cannot be built or is not frozen.
pub fn build_input(config: &InputConfig, registry: &Registry, context: &BuildContext<'_>) -> Result<BuiltInput> {
    let field = &context.field;
    let without_encoder = |processor: Arc<dyn Processor>, shape: Vec<i64>, value_type: ValueType| BuiltInput {
        processor,
        spec: InputSpec { shape, value_type },
        encoder: None,
    };
    Ok(match config {
        InputConfig::Image { image_size } => {
            if !(4..=512).contains(image_size) {
                return Err(Error::config(format!("{field}.image_size"), image_size, "4 to 512 pixels"));
            }
            let shape = vec![3, *image_size, *image_size];
            without_encoder(Arc::new(image_processor(*image_size as u32)), shape, ValueType::UnitInterval)
        }
        InputConfig::Spectrogram { num_frames, processor } => {
            if !(1..=100_000).contains(num_frames) {
                return Err(Error::config(format!("{field}.num_frames"), num_frames, "1 to 100,000"));
            }
            let shape = vec![1, *num_frames, processor.mel.n_mels as i64];
            let inner = AudioProcessor::new(processor.clone())?;
            let processor = FixedLengthSpectrogram { inner, num_frames: *num_frames };
            without_encoder(Arc::new(processor), shape, ValueType::Real)
        }
        InputConfig::Vector { dim } => {
            if *dim < 1 {
                return Err(Error::config(format!("{field}.dim"), dim, "at least 1"));
            }
            without_encoder(Arc::new(VectorProcessor::new(*dim as usize)), vec![*dim], ValueType::Real)
        }
        InputConfig::BagOfWords { vocabulary, .. } => {
            let shape = vec![vocabulary.len() as i64];
            without_encoder(Arc::new(BagOfWords::new(vocabulary)), shape, ValueType::Binary)
        }
        InputConfig::Characters { max_length, alphabet, .. } => {
            if !(3..=10_000).contains(max_length) {
                return Err(Error::config(format!("{field}.max_length"), max_length, "3 to 10,000"));
            }
            let value_type = ValueType::Tokens(alphabet.chars().count() as i64 + NUM_SPECIAL_TOKENS);
            let processor = Characters::new(alphabet, *max_length);
            without_encoder(Arc::new(processor), vec![*max_length as i64], value_type)
        }
        InputConfig::Features { encoder } => build_encoder_input(encoder, registry, context)?,
    })
}

/// Squares of `size` pixels in [0, 1].
fn image_processor(size: u32) -> ImageProcessor {
    let transform = ImageTransform {
        resize: Some(Resize::Exact(size, size)),
        crop: None,
        mean: [0.0; 3],
        std: [1.0; 3],
        ..ImageTransform::default()
    };
    ImageProcessor::new(ImageProcessorConfig { transform, ..ImageProcessorConfig::default() })
}

fn build_encoder_input(encoder: &toml::Value, registry: &Registry, context: &BuildContext<'_>) -> Result<BuiltInput> {
    let field = format!("{}.encoder", context.field);
    let (scope, base_dir) = (context.scope.clone(), context.base_dir.clone());
    let built = registry.build(encoder, &BuildContext { scope, base_dir, field: field.clone(), registry })?;
    if !built.frozen {
        return Err(Error::config(field, "a trainable encoder", "a frozen encoder"));
    }
    let spec = InputSpec { shape: vec![built.encoder.embedding_dim()], value_type: ValueType::Real };
    let fingerprint = format!("{} {}", built.fingerprint, built.processor.fingerprint());
    Ok(BuiltInput { processor: built.processor, spec, encoder: Some((built.encoder, fingerprint)) })
}
