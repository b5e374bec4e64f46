//! Text encoders.

mod bag;
mod dropout;
mod reader;
mod sentence;
mod sentencepiece;
mod tokenizer;
pub(crate) mod transformer;

pub use bag::{Bag, BagConfig};
pub use dropout::WordDropout;
pub use reader::{Reader, ReaderConfig, ReaderProcessor, words};
pub use sentence::SentenceEncoder;
pub use tokenizer::{TextProcessor, json, tokenizer};
pub use transformer::BERT_NAMES;

use mm_core::{Error, Result, Source};
use std::borrow::Cow;

/// The text that a source is, or that its file holds.
pub(crate) fn read(source: &Source) -> Result<Cow<'_, str>> {
    match source {
        Source::Text(text) => Ok(Cow::Borrowed(text)),
        Source::File(path) => Ok(Cow::Owned(mm_data::decode::read_text(path, None)?)),
        Source::Value(value) => Err(Error::Sample(format!("found {value}, wanted a text"))),
    }
}
