//! Processors that produce values of a fixed shape.

use crate::text::read_normalized_text;
use mm_core::{ProcessContext, Processor, Result, Source, Tensor};
use mm_data::AudioProcessor;
use std::collections::HashMap;

/// Token ids of [`ValueType::Tokens`](crate::generative::ValueType::Tokens).
const START: i64 = 1;
const END: i64 = 2;
const UNKNOWN: i64 = 3;
pub(super) const NUM_SPECIAL_TOKENS: i64 = 4;

/// Audio → spectrogram `[1, num_frames, n_mels]`, truncated or padded with its minimum.
pub(super) struct FixedLengthSpectrogram {
    pub(super) inner: AudioProcessor,
    pub(super) num_frames: i64,
}

impl Processor for FixedLengthSpectrogram {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let x = self.inner.process(source, context)?; // [frames, n_mels]
        let found = x.size(0)?;
        let x = if found < self.num_frames {
            let silence = x.min()?.to_f64()?;
            x.pad(&[0, 0, 0, self.num_frames - found], silence)?
        } else {
            x.narrow(0, 0, self.num_frames)?
        };
        x.unsqueeze(0)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("{} {} frames", self.inner.fingerprint(), self.num_frames)
    }
}

/// Runs of letters and digits in lower case.
pub(super) fn tokenize_words(text: &str) -> Vec<String> {
    let lowercase = text.to_lowercase();
    lowercase.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(ToOwned::to_owned).collect()
}

/// Text → `[vocabulary]`, 1 for each word that occurs.
pub(super) struct BagOfWords {
    indices: HashMap<String, usize>,
    dim: usize,
}

impl BagOfWords {
    pub(super) fn new(vocabulary: &[String]) -> Self {
        let indices = vocabulary.iter().enumerate().map(|(index, word)| (word.clone(), index)).collect();
        Self { indices, dim: vocabulary.len() }
    }
}

impl Processor for BagOfWords {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let mut values = vec![0f32; self.dim];
        for word in tokenize_words(&read_normalized_text(source)?) {
            if let Some(index) = self.indices.get(&word) {
                values[*index] = 1.0;
            }
        }
        Tensor::from_slice(&values)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        let mut words: Vec<&String> = self.indices.keys().collect();
        words.sort();
        format!("bag_of_words {}", blake3::hash(format!("{words:?}").as_bytes()).to_hex())
    }
}

/// Text → character ids `[max_length]` with start and end tokens, padded.
pub(super) struct Characters {
    ids: HashMap<char, i64>,
    max_length: usize,
}

impl Characters {
    pub(super) fn new(alphabet: &str, max_length: usize) -> Self {
        let ids = alphabet.chars().enumerate().map(|(index, c)| (c, index as i64 + NUM_SPECIAL_TOKENS)).collect();
        Self { ids, max_length }
    }
}

impl Processor for Characters {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let text = read_normalized_text(source)?;
        let chars = text.trim().chars().take(self.max_length - 2);
        let ids = chars.map(|c| self.ids.get(&c).copied().unwrap_or(UNKNOWN));
        let mut tokens: Vec<i64> = std::iter::once(START).chain(ids).chain([END]).collect();
        tokens.resize(self.max_length, 0);
        Tensor::from_slice(&tokens)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        let mut chars: Vec<&char> = self.ids.keys().collect();
        chars.sort();
        format!("characters {chars:?} {}", self.max_length)
    }
}

/// The text of a row of character ids.
pub fn decode_chars(tokens: &[i64], alphabet: &str) -> String {
    let chars: Vec<char> = alphabet.chars().collect();
    tokens
        .iter()
        .skip(1)
        .take_while(|token| **token != 0 && **token != END)
        .map(|token| chars.get((*token - NUM_SPECIAL_TOKENS).max(-1) as usize).copied().unwrap_or('\u{fffd}'))
        .collect()
}
