//! Texts by the vectors of their words: an encoder like any other, for where a transformer is too much.

use super::WordVectors;
use mm_core::{Encoder, Features, Input, Modality, ProcessContext, Processor, Source, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How much a word of a text counts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Weighting {
    /// Each alike.
    #[default]
    Mean,
    /// Smooth inverse frequency (Arora 2017): a / (a + share of the word), 0.001 being usual. The common direction is not taken out.
    Sif(f64),
    /// The logarithm of the inverse share of the word, as tf-idf would with each occurrence a document.
    InverseFrequency,
}

/// A text → for each known word its vector, and last how much it counts: `[words, width + 1]`.
pub struct WordVectorsProcessor {
    words: Arc<WordVectors>,
    weighting: Weighting,
    fingerprint: String,
}

impl WordVectorsProcessor {
    /// A processor over these vectors; `fingerprint` changes whenever they do.
    pub fn new(words: Arc<WordVectors>, weighting: Weighting, fingerprint: &str) -> Self {
        Self { words, weighting, fingerprint: format!("words {fingerprint} {weighting:?}") }
    }

    fn weight(&self, word: &str) -> f64 {
        let total = self.words.vocabulary.total().max(1) as f64;
        let count = self.words.vocabulary.id(word).map_or(1, |id| self.words.vocabulary.counts[id as usize]);
        let share = count as f64 / total;
        match self.weighting {
            Weighting::Mean => 1.0,
            Weighting::Sif(a) => a / (a + share),
            Weighting::InverseFrequency => -share.ln(),
        }
    }
}

impl Processor for WordVectorsProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let text = crate::text::read(source)?;
        let width = self.words.vector_size;
        let mut rows: Vec<f32> = Vec::new();
        for word in text.split_whitespace() {
            // As it stands; else without what is around it; else in lower case too.
            let bare = word.trim_matches(|c: char| !c.is_alphanumeric());
            let lower = bare.to_lowercase();
            let known = [word, bare, &lower].into_iter().find(|w| self.words.vocabulary.id(w).is_some());
            if let Some(vector) = self.words.vector(known.unwrap_or(&lower)) {
                rows.extend(vector);
                rows.push(self.weight(known.unwrap_or(&lower)) as f32);
            }
        }
        if rows.is_empty() {
            // A text of unknown words alone says nothing.
            rows = vec![0.0; width + 1];
        }
        Tensor::from_vec(&rows, &[(rows.len() / (width + 1)) as i64, width as i64 + 1])
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// What [`WordVectorsProcessor`] gives → features `[batch, words, width]`, and their weighted mean.
pub struct WordVectorsEncoder {
    width: i64,
}

impl WordVectorsEncoder {
    /// An encoder of vectors of that width.
    pub fn new(width: usize) -> Self {
        Self { width: width as i64 }
    }
}

impl Encoder for WordVectorsEncoder {
    fn encode(&self, input: &Input, _train: bool) -> mm_core::Result<Features> {
        Features::new(input.values.narrow(2, 0, self.width)?, input.mask.clone())
    }

    fn embed(&self, input: &Input, _train: bool) -> mm_core::Result<Tensor> {
        // Padding weighs nothing.
        let weight = input.values.narrow(2, self.width, 1)?; // [batch, words, 1]
        let sum = input.values.narrow(2, 0, self.width)?.mul(&weight)?.sum_dims(&[1], false)?;
        sum.div(&weight.sum_dims(&[1], false)?.clamp_min(1e-9)?)
    }

    fn width(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}
