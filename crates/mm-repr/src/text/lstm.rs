//! A small text encoder that is trained from scratch: word embeddings and an LSTM.
//!
//! *Long Short-Term Memory* (Hochreiter, Schmidhuber, 1997), <https://doi.org/10.1162/neco.1997.9.8.1735>.

use super::{source::read_normalized_text, word_tokens::word_tokens};
use mm_core::{
    Encoder, Error, Features, Input, Modality, Pooling, ProcessContext, Processor, Result, Scope, Source, Tensor,
    nn::{Embedding, Lstm, LstmConfig},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Sizes and vocabulary of an [`LstmEncoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LstmEncoderConfig {
    /// Known words; taken from the training texts if absent.
    pub vocabulary: Vec<String>,
    /// Dimension of the word embeddings.
    pub embedding_dim: i64,
    /// Dimension of the features.
    pub hidden_dim: i64,
    /// Number of LSTM layers. With 0, the features are word embeddings of dimension `hidden_dim`.
    pub num_layers: i64,
    /// Dropout rate.
    pub dropout: f64,
    /// Rate at which words are replaced by the unknown word while training.
    pub word_dropout: f64,
    /// Maximum number of words of a text; longer texts are truncated, and counted.
    pub max_length: usize,
}

impl Default for LstmEncoderConfig {
    fn default() -> Self {
        Self {
            vocabulary: Vec::new(),
            embedding_dim: 64,
            hidden_dim: 128,
            num_layers: 1,
            dropout: 0.0,
            word_dropout: 0.0,
            max_length: 256,
        }
    }
}

impl LstmEncoderConfig {
    /// The most frequent words of texts, at most `max_size`. Words that occur once are left out unless they are more
    /// than three quarters of all.
    pub fn vocabulary<'a>(texts: impl Iterator<Item = &'a str>, max_size: usize) -> Vec<String> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for text in texts {
            word_tokens(text).for_each(|w| *counts.entry(w).or_default() += 1);
        }
        let mut words: Vec<(String, usize)> = counts.into_iter().collect();
        let repeated = words.iter().filter(|(_, n)| *n > 1).count();
        if repeated * 4 >= words.len() {
            words.retain(|(_, n)| *n > 1);
        }
        words.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        words.into_iter().take(max_size).map(|(w, _)| w).collect()
    }
}

/// Id of words outside the vocabulary; 0 is padding.
const UNKNOWN_ID: i64 = 1;

/// A text → word ids `[words]`.
pub struct WordIdProcessor {
    ids: HashMap<String, i64>,
    max_length: usize,
    word_dropout: f64,
    fingerprint: String,
    num_truncated: AtomicUsize,
}

impl WordIdProcessor {
    /// A processor with the config's vocabulary.
    pub fn new(config: &LstmEncoderConfig) -> Self {
        let mut hasher = blake3::Hasher::new();
        config.vocabulary.iter().for_each(|w| {
            hasher.update(w.as_bytes()).update(&[0]);
        });
        Self {
            ids: config.vocabulary.iter().cloned().zip(2..).collect(),
            max_length: config.max_length.max(1),
            word_dropout: config.word_dropout,
            fingerprint: format!("lstm {} {}", hasher.finalize().to_hex(), config.max_length),
            num_truncated: AtomicUsize::new(0),
        }
    }
}

impl WordIdProcessor {
    fn limit(&self) -> String {
        format!("{} words", self.max_length)
    }
}

impl Processor for WordIdProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let text = read_normalized_text(source)?;
        let mut ids: Vec<i64> = word_tokens(&text).map(|w| self.ids.get(&w).copied().unwrap_or(UNKNOWN_ID)).collect();
        if ids.len() > self.max_length {
            self.num_truncated.fetch_add(1, Ordering::Relaxed);
            mm_data::note_truncated(self.limit());
            ids.truncate(self.max_length);
        }
        if ids.is_empty() {
            ids.push(UNKNOWN_ID);
        }
        self.augment(Tensor::from_slice(&ids)?, context)
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn token_names(&self, source: &Source) -> Result<Vec<String>> {
        Ok(word_tokens(&read_normalized_text(source)?).take(self.max_length).collect())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn truncated(&self) -> Option<(usize, String)> {
        let count = self.num_truncated.load(Ordering::Relaxed);
        (count > 0).then(|| (count, self.limit()))
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> Result<Tensor> {
        if !context.train || self.word_dropout == 0.0 {
            return Ok(sample);
        }
        let mut ids = sample.to_vec::<i64>()?;
        for id in &mut ids {
            if context.rng.uniform_range(0.0, 1.0) < self.word_dropout {
                *id = UNKNOWN_ID;
            }
        }
        Tensor::from_slice(&ids)
    }
}

/// Word ids `[batch, words]` → features `[batch, words, hidden_dim]`; the embedding is the last.
pub struct LstmEncoder {
    embedding: Embedding,
    lstm: Option<Lstm>,
    hidden_dim: i64,
    dropout: f64,
}

impl LstmEncoder {
    /// Builds the network under `scope`.
    ///
    /// # Errors
    /// If the vocabulary is empty or the embedding dimension below 1.
    pub fn new(scope: &Scope<'_>, config: &LstmEncoderConfig) -> Result<Self> {
        if config.vocabulary.is_empty() || config.embedding_dim < 1 {
            let found = format!("{} words, embedding_dim {}", config.vocabulary.len(), config.embedding_dim);
            return Err(Error::config("lstm", found, "at least one word, and an embedding_dim of at least 1"));
        }
        let has_lstm = config.num_layers != 0;
        let lstm = LstmConfig {
            input_dim: config.embedding_dim,
            hidden_dim: config.hidden_dim,
            num_layers: config.num_layers,
            bidirectional: false,
            dropout: config.dropout,
        };
        let embedding_dim = if has_lstm { config.embedding_dim } else { config.hidden_dim };
        let num_embeddings = config.vocabulary.len() as i64 + 2;
        Ok(Self {
            embedding: Embedding::with_std(&scope.pp("words"), num_embeddings, embedding_dim, 1.0)?,
            lstm: has_lstm.then(|| Lstm::new(&scope.pp("lstm"), lstm)).transpose()?,
            hidden_dim: config.hidden_dim,
            dropout: config.dropout,
        })
    }
}

impl Encoder for LstmEncoder {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        let x = self.embedding.forward(&input.values)?.dropout(self.dropout, train)?;
        let x = match &self.lstm {
            Some(lstm) => lstm.forward(&x, input.mask.as_ref(), train)?,
            None => x,
        };
        Features::new(x, input.mask.clone())
    }

    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        self.encode(input, train)?.pool(Pooling::Last)
    }

    fn dim(&self) -> i64 {
        self.hidden_dim
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}
