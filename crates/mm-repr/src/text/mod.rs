//! Text encoders.

mod bert;
mod sentence;
mod tokenizer;

pub use bert::{Bert, BertConfig};
pub use sentence::SentenceEncoder;
pub use tokenizer::TextProcessor;
pub(crate) use tokenizer::json;
