//! What a learner takes: raw value → numbers of a fixed shape, by the `kind` that a config names.

use super::{InputSpec, ValueType};
use crate::{text::read_text, vector::VectorProcessor};
use mm_core::{BuildContext, Encoder, Error, ProcessContext, Processor, Registry, Result, Source, Tensor};
use mm_data::{
    AudioProcessor, AudioProcessorConfig, ImageProcessor, ImageProcessorConfig,
    transform::{ImageTransform, Resize},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// How one modality's values become numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum InputConfig {
    /// Picture files, their pixels in [0, 1], as squares.
    Image {
        /// Pixels a side.
        image_size: i64,
    },
    /// Sound files, as spectrograms of so many frames, cut or filled with the quietest.
    Spectrogram {
        /// Frames.
        num_frames: i64,
        /// The spectrogram.
        processor: AudioProcessorConfig,
    },
    /// Lists of numbers in the manifest.
    Vector {
        /// How many.
        dim: i64,
    },
    /// Texts, as which of the words of a vocabulary they have.
    BagOfWords {
        /// The max_features frequent words of the training texts are taken, so many.
        #[serde(default = "default_max_features")]
        max_features: usize,
        /// Words in fewer training texts are left out.
        #[serde(default = "default_min_df")]
        min_df: usize,
        /// The words; taken from the training texts when empty.
        #[serde(default)]
        vocabulary: Vec<String>,
    },
    /// Texts, as their characters one after another.
    Characters {
        /// Most that are kept, two of them for the beginning and the end.
        max_length: usize,
        /// Characters in fewer training texts are left out.
        #[serde(default = "default_min_df")]
        min_df: usize,
        /// The characters; taken from the training texts when empty.
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

/// A modality's way in.
pub struct BuiltInput {
    /// Raw value → numbers; of the raw value alone where there is an encoder.
    pub processor: Arc<dyn Processor>,
    /// Shape and kind of the numbers.
    pub spec: InputSpec,
    /// The frozen encoder that they go through, and what changes whenever its vectors would.
    pub encoder: Option<(Box<dyn Encoder>, String)>,
}

impl InputConfig {
    /// Takes from the training texts what is not given: the words, the characters.
    pub fn fit<'a>(&mut self, texts: impl Iterator<Item = &'a Source>) -> Result<()> {
        match self {
            Self::BagOfWords { max_features, min_df, vocabulary } if vocabulary.is_empty() => {
                let mut counts: HashMap<String, usize> = HashMap::new();
                for source in texts {
                    let mut own = words(&read_text(source)?);
                    own.sort();
                    own.dedup();
                    own.into_iter().for_each(|w| *counts.entry(w).or_default() += 1);
                }
                let mut counted: Vec<(String, usize)> = counts.into_iter().filter(|(_, c)| c >= min_df).collect();
                counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
                *vocabulary = counted.into_iter().take(*max_features).map(|(w, _)| w).collect();
                if vocabulary.is_empty() {
                    let wanted = format!("words that stand in at min_df {min_df} training texts");
                    return Err(Error::config("inputs.bag_of_words.vocabulary", "no word", wanted));
                }
            }
            Self::Characters { min_df, alphabet, .. } if alphabet.is_empty() => {
                let mut counts: BTreeMap<char, usize> = BTreeMap::new();
                for source in texts {
                    let mut own: Vec<char> = read_text(source)?.chars().collect();
                    own.sort_unstable();
                    own.dedup();
                    own.into_iter().for_each(|c| *counts.entry(c).or_default() += 1);
                }
                *alphabet = counts.into_iter().filter(|(_, c)| c >= min_df).map(|(c, _)| c).collect();
                if alphabet.is_empty() {
                    let wanted = format!("characters that stand in at min_df {min_df} training texts");
                    return Err(Error::config("inputs.characters.alphabet", "no character", wanted));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Builds a modality's way in.
pub fn build_input(config: &InputConfig, registry: &Registry, context: &BuildContext<'_>) -> Result<BuiltInput> {
    let field = &context.field;
    let plain = |processor: Arc<dyn Processor>, shape: Vec<i64>, values: ValueType| BuiltInput {
        processor,
        spec: InputSpec { shape, value_type: values },
        encoder: None,
    };
    Ok(match config {
        InputConfig::Image { image_size: size } => {
            if !(4..=512).contains(size) {
                return Err(Error::config(format!("{field}.image_size"), size, "4 to 512 pixels"));
            }
            let side = *size as u32;
            let transform = ImageTransform {
                resize: Some(Resize::Exact(side, side)),
                crop: None,
                mean: [0.0; 3],
                std: [1.0; 3],
                ..ImageTransform::default()
            };
            let processor = ImageProcessor::new(ImageProcessorConfig { transform, ..ImageProcessorConfig::default() });
            plain(Arc::new(processor), vec![3, *size, *size], ValueType::UnitInterval)
        }
        InputConfig::Spectrogram { num_frames: frames, processor } => {
            if !(1..=100_000).contains(frames) {
                return Err(Error::config(format!("{field}.num_frames"), frames, "1 to 100,000"));
            }
            let bands = processor.mel.n_mels as i64;
            let inner = AudioProcessor::new(processor.clone())?;
            let fixed = Fixed { inner, frames: *frames };
            plain(Arc::new(fixed), vec![1, *frames, bands], ValueType::Real)
        }
        InputConfig::Vector { dim: width } => {
            if *width < 1 {
                return Err(Error::config(format!("{field}.dim"), width, "at min_df 1"));
            }
            plain(Arc::new(VectorProcessor::new(*width as usize)), vec![*width], ValueType::Real)
        }
        InputConfig::BagOfWords { vocabulary, .. } => {
            let places = vocabulary.iter().enumerate().map(|(p, w)| (w.clone(), p)).collect();
            let width = vocabulary.len() as i64;
            plain(Arc::new(Words { places, width }), vec![width], ValueType::Binary)
        }
        InputConfig::Characters { max_length: length, alphabet, .. } => {
            if !(3..=10_000).contains(length) {
                return Err(Error::config(format!("{field}.max_length"), length, "3 to 10,000"));
            }
            let numbers = alphabet.chars().enumerate().map(|(n, c)| (c, n as i64 + 4)).collect();
            let symbols = ValueType::Tokens(alphabet.chars().count() as i64 + 4);
            plain(Arc::new(Characters { numbers, length: *length }), vec![*length as i64], symbols)
        }
        InputConfig::Features { encoder } => {
            let built = registry.build(
                encoder,
                &BuildContext {
                    scope: context.scope.clone(),
                    base_dir: context.base_dir.clone(),
                    field: format!("{field}.encoder"),
                },
            )?;
            if !built.frozen {
                let wanted = "an encoder whose weights are not learned";
                return Err(Error::config(format!("{field}.encoder"), "an encoder that learns", wanted));
            }
            let spec = InputSpec { shape: vec![built.encoder.embedding_dim()], value_type: ValueType::Real };
            let fingerprint = format!("{} {}", built.fingerprint, built.processor.fingerprint());
            BuiltInput { processor: built.processor, spec, encoder: Some((built.encoder, fingerprint)) }
        }
    })
}

/// The text of a row of symbols, as [`InputConfig::Characters`] made it.
pub fn decode_chars(symbols: &[i64], alphabet: &str) -> String {
    let letters: Vec<char> = alphabet.chars().collect();
    symbols
        .iter()
        .skip(1)
        .take_while(|s| **s != 0 && **s != 2)
        .map(|s| letters.get((*s - 4).max(-1) as usize).copied().unwrap_or('\u{fffd}'))
        .collect()
}

/// Runs of letters and digits in lower case.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(ToOwned::to_owned).collect()
}

struct Fixed {
    inner: AudioProcessor,
    frames: i64,
}

impl Processor for Fixed {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let x = self.inner.process(source, context)?; // [frames, bands]
        let found = x.size(0)?;
        let x = if found < self.frames {
            let least = x.min()?.to_f64()?;
            x.pad(&[0, 0, 0, self.frames - found], least)?
        } else {
            x.narrow(0, 0, self.frames)?
        };
        x.unsqueeze(0)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("{} {} frames", self.inner.fingerprint(), self.frames)
    }
}

struct Words {
    places: HashMap<String, usize>,
    width: i64,
}

impl Processor for Words {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let mut has = vec![0f32; self.width as usize];
        for word in words(&read_text(source)?) {
            if let Some(place) = self.places.get(&word) {
                has[*place] = 1.0;
            }
        }
        Tensor::from_slice(&has)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        let mut known: Vec<&String> = self.places.keys().collect();
        known.sort();
        format!("words {}", blake3::hash(format!("{known:?}").as_bytes()).to_hex())
    }
}

struct Characters {
    numbers: HashMap<char, i64>,
    length: usize,
}

impl Processor for Characters {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let text = read_text(source)?;
        let inner = text.trim().chars().take(self.length - 2).map(|c| self.numbers.get(&c).copied().unwrap_or(3));
        let mut symbols: Vec<i64> = std::iter::once(1).chain(inner).chain([2]).collect();
        symbols.resize(self.length, 0);
        Tensor::from_slice(&symbols)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        let mut known: Vec<&char> = self.numbers.keys().collect();
        known.sort();
        format!("characters {known:?} {}", self.length)
    }
}
