//! A small network that learns to read from nothing: vectors of the training texts' words through long short-term memory.

use mm_core::{
    Encoder, Error, Features, Input, Modality, Pooling, ProcessContext, Processor, Result, Scope, Source, Tensor,
    nn::{Embedding, Lstm, LstmConfig},
};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Sizes of a [`LstmEncoder`], and the words that it knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LstmEncoderConfig {
    /// The words; those of the training texts where a config has none.
    pub vocabulary: Vec<String>,
    /// Width of a word's vector.
    pub embedding_dim: i64,
    /// Width of the features.
    pub hidden_dim: i64,
    /// ConcatLayers; without any each word is read by itself, `width` numbers of its own.
    pub num_layers: i64,
    /// Rate of dropout while training.
    pub dropout: f64,
    /// Rate at which words are unknown while training.
    pub word_dropout: f64,
    /// Most words of a text; the rest is cut off, and counted.
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
    /// The words of texts, most frequent first; those that come once are unknown, unless almost all do.
    pub fn vocabulary<'a>(texts: impl Iterator<Item = &'a str>, most: usize) -> Vec<String> {
        let mut counts: HashMap<String, usize> = HashMap::new();
        for text in texts {
            word_tokens(text).for_each(|w| *counts.entry(w).or_default() += 1);
        }
        let mut counted: Vec<(String, usize)> = counts.into_iter().collect();
        let often = counted.iter().filter(|(_, n)| *n > 1).count();
        if often * 4 >= counted.len() {
            counted.retain(|(_, n)| *n > 1);
        }
        counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        counted.into_iter().take(most).map(|(w, _)| w).collect()
    }
}

/// The words of a text, lower-cased, without punctuation.
pub fn word_tokens(text: &str) -> impl Iterator<Item = String> {
    let lower = text.to_lowercase();
    let split = |c: char| !c.is_alphanumeric() && c != '\'';
    lower.split(split).filter(|w| !w.is_empty()).map(ToOwned::to_owned).collect::<Vec<_>>().into_iter()
}

const UNKNOWN: i64 = 1;

/// A text → numbers of its words `[words]`; 0 pads, 1 is a word that is not known.
pub struct WordIdProcessor {
    places: HashMap<String, i64>,
    max_length: usize,
    word_dropout: f64,
    fingerprint: String,
    cut: std::sync::atomic::AtomicUsize,
}

impl WordIdProcessor {
    /// Of these words.
    pub fn new(config: &LstmEncoderConfig) -> Self {
        let mut hasher = blake3::Hasher::new();
        config.vocabulary.iter().for_each(|w| {
            hasher.update(w.as_bytes()).update(&[0]);
        });
        Self {
            places: config.vocabulary.iter().cloned().zip(2..).collect(),
            max_length: config.max_length.max(1),
            word_dropout: config.word_dropout,
            fingerprint: format!("lstm {} {}", hasher.finalize().to_hex(), config.max_length),
            cut: Default::default(),
        }
    }
}

impl Processor for WordIdProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let text = super::read(source)?;
        let mut ids: Vec<i64> = word_tokens(&text).map(|w| self.places.get(&w).copied().unwrap_or(UNKNOWN)).collect();
        if ids.len() > self.max_length {
            self.cut.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            ids.truncate(self.max_length);
        }
        if ids.is_empty() {
            ids.push(UNKNOWN);
        }
        self.augment(Tensor::from_slice(&ids)?, context)
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn token_names(&self, source: &Source) -> Result<Vec<String>> {
        Ok(word_tokens(&super::read(source)?).take(self.max_length).collect())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }

    fn truncated(&self) -> Option<(usize, String)> {
        let count = self.cut.load(std::sync::atomic::Ordering::Relaxed);
        (count > 0).then(|| (count, format!("{} words", self.max_length)))
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> Result<Tensor> {
        if !context.train || self.word_dropout == 0.0 {
            return Ok(sample);
        }
        let word_dropout = |id: i64, context: &mut ProcessContext| {
            if context.rng.uniform_range(0.0, 1.0) < self.word_dropout { UNKNOWN } else { id }
        };
        let ids: Vec<i64> = sample.to_vec::<i64>()?.into_iter().map(|id| word_dropout(id, context)).collect();
        Tensor::from_slice(&ids)
    }
}

/// Numbers of words `[batch, words]` → features `[batch, words, width]`; pooled: the last.
pub struct LstmEncoder {
    words: Embedding,
    lstm: Option<Lstm>,
    width: i64,
    dropout: f64,
}

impl LstmEncoder {
    /// The network under `scope`.
    pub fn new(scope: &Scope<'_>, config: &LstmEncoderConfig) -> Result<Self> {
        if config.vocabulary.is_empty() || config.embedding_dim < 1 {
            let found = format!("{} words, embedding {}", config.vocabulary.len(), config.embedding_dim);
            return Err(Error::config("lstm", found, "at least one of each"));
        }
        let alone = config.num_layers == 0;
        let sizes = LstmConfig {
            input_dim: config.embedding_dim,
            hidden_dim: config.hidden_dim,
            num_layers: config.num_layers,
            bidirectional: false,
            dropout: config.dropout,
        };
        let each = if alone { config.hidden_dim } else { config.embedding_dim };
        Ok(Self {
            words: Embedding::with_std(&scope.pp("words"), config.vocabulary.len() as i64 + 2, each, 1.0)?,
            lstm: if alone { None } else { Some(Lstm::new(&scope.pp("lstm"), sizes)?) },
            width: config.hidden_dim,
            dropout: config.dropout,
        })
    }
}

impl Encoder for LstmEncoder {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        let x = self.words.forward(&input.values)?.dropout(self.dropout, train)?;
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
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}
