//! Text encoders.

mod bag;
mod sentence;
mod sentencepiece;
mod tokenizer;
pub(crate) mod transformer;

pub use bag::{Bag, BagConfig};
pub use sentence::SentenceEncoder;
pub use tokenizer::TextProcessor;
pub(crate) use tokenizer::json;
