//! Text encoders.

mod lstm;
mod sentence;
mod sentencepiece;
mod tfidf;
mod tokenizer;
pub(crate) mod transformer;
mod word_dropout;

pub use lstm::{LstmEncoder, LstmEncoderConfig, WordIdProcessor, word_tokens};
pub use sentence::SentenceEncoder;
pub use tfidf::{TfidfConfig, TfidfProcessor};
pub use tokenizer::{TextProcessor, load_tokenizer, read_json};
pub use transformer::BERT_WEIGHT_MAP;
pub use word_dropout::WordDropout;

use mm_core::{Error, Result, Source};
use std::borrow::Cow;

/// The text that a source is, or that its file holds.
pub(crate) fn read(source: &Source) -> Result<Cow<'_, str>> {
    match source {
        Source::Text(text) => Ok(Cow::Borrowed(text)),
        Source::Path(path) => Ok(Cow::Owned(mm_data::decode::read_text(path, None)?)),
        Source::Value(value) => Err(Error::Sample(format!("found {value}, wanted a text"))),
    }
}
