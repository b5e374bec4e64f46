//! Text encoding by pooled word vectors.

use super::vectors::WordVectors;
use mm_core::{Encoder, Features, Input, Modality, ProcessContext, Processor, Source, Tensor};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Weights of the words of a text, p being a word's relative frequency in the vocabulary.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Weighting {
    /// 1 for every word.
    #[default]
    Mean,
    /// Smooth inverse frequency, a / (a + p) with usually a = 0.001; the common component is not removed. *A Simple but
    /// Tough-to-Beat Baseline for Sentence Embeddings*
    /// ([Arora et al., 2017](https://openreview.net/forum?id=SyK00v5xx)).
    Sif(f64),
    /// −ln p.
    InverseFrequency,
}

/// Text → `[words, vector_size + 1]`: the vector of each word that has one, followed by its weight.
///
/// Words are looked up as written, then without surrounding punctuation, then in lower case.
pub struct WordVectorsProcessor {
    vectors: Arc<WordVectors>,
    weighting: Weighting,
    fingerprint: String,
}

impl WordVectorsProcessor {
    /// A processor; `fingerprint` identifies the vectors.
    pub fn new(vectors: Arc<WordVectors>, weighting: Weighting, fingerprint: &str) -> Self {
        Self { vectors, weighting, fingerprint: format!("word_vectors {fingerprint} {weighting:?}") }
    }

    fn weight(&self, word: &str) -> f64 {
        let vocabulary = &self.vectors.vocabulary;
        let count = vocabulary.id(word).map_or(1, |id| vocabulary.counts[id as usize]);
        let frequency = count as f64 / vocabulary.total_count().max(1) as f64;
        match self.weighting {
            Weighting::Mean => 1.0,
            Weighting::Sif(a) => a / (a + frequency),
            Weighting::InverseFrequency => -frequency.ln(),
        }
    }
}

impl Processor for WordVectorsProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let text = crate::text::read_text(source)?;
        let dim = self.vectors.vector_size;
        let mut rows: Vec<f32> = Vec::new();
        for word in text.split_whitespace() {
            let stripped = word.trim_matches(|c: char| !c.is_alphanumeric());
            let lowercase = stripped.to_lowercase();
            let in_vocabulary = |w: &&str| self.vectors.vocabulary.id(w).is_some();
            let word = [word, stripped, &lowercase].into_iter().find(in_vocabulary).unwrap_or(&lowercase);
            if let Some(vector) = self.vectors.vector(word) {
                rows.extend(vector);
                rows.push(self.weight(word) as f32);
            }
        }
        if rows.is_empty() {
            // No word has a vector: a zero row with zero weight.
            rows = vec![0.0; dim + 1];
        }
        Tensor::from_vec(&rows, &[(rows.len() / (dim + 1)) as i64, dim as i64 + 1])
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// Output of a [`WordVectorsProcessor`] → features `[batch, words, vector_size]` and their weighted mean
/// `[batch, vector_size]`.
pub struct WordVectorsEncoder {
    dim: i64,
}

impl WordVectorsEncoder {
    /// An encoder for vectors of this dimension.
    pub fn new(vector_size: usize) -> Self {
        Self { dim: vector_size as i64 }
    }
}

impl Encoder for WordVectorsEncoder {
    fn encode(&self, input: &Input, _train: bool) -> mm_core::Result<Features> {
        Features::new(input.values.narrow(2, 0, self.dim)?, input.mask.clone())
    }

    fn embed(&self, input: &Input, _train: bool) -> mm_core::Result<Tensor> {
        // Padding has weight zero.
        let weight = input.values.narrow(2, self.dim, 1)?; // [batch, words, 1]
        let sum = input.values.narrow(2, 0, self.dim)?.mul(&weight)?.sum_dim(&[1], false)?;
        sum.div(&weight.sum_dim(&[1], false)?.clamp_min(1e-9)?)
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}
