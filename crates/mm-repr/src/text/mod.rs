//! Text encoders.

mod added_tokens;
mod bert;
mod classifier;
mod lstm;
mod pairs;
mod prompts;
mod sentence;
mod sentencepiece;
mod source;
mod tfidf;
mod tokenizer;
pub(crate) mod transformer;
mod vocab_files;
mod word_dropout;
mod word_tokens;

pub use lstm::{LstmEncoder, LstmEncoderConfig, WordIdProcessor};
pub use pairs::{PairProcessor, TokenizedPair};
pub use sentence::SentenceEncoder;
pub(crate) use source::{read_normalized_text, read_text};
pub use tfidf::{TfidfConfig, TfidfProcessor};
pub use tokenizer::{TextProcessor, load_tokenizer};
pub use transformer::BERT_WEIGHT_MAP;
pub use word_dropout::WordDropout;
pub use word_tokens::word_tokens;

use crate::family::Family;

/// The families of this module.
pub(crate) const FAMILIES: &[&[Family]] = &[bert::FAMILIES];
