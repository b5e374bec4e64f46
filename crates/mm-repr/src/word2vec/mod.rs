//! Word2Vec and fastText word vectors: training, similarity queries, evaluation, the original programs' file formats,
//! and a text encoder on top of them.
//!
//! Skip-gram and CBOW are those of *Efficient Estimation of Word Representations in Vector Space* ([Mikolov et al.,
//! 2013](https://arxiv.org/abs/1301.3781)); negative sampling, subsampling and phrases those of *Distributed
//! Representations of Words and Phrases and their Compositionality* ([Mikolov et al.,
//! 2013](https://arxiv.org/abs/1310.4546)); character n-grams those of *Enriching Word Vectors with Subword
//! Information* ([Bojanowski et al., 2017](https://arxiv.org/abs/1607.04606)). Corpora may be larger than memory.
//!
//! ```no_run
//! use mm_repr::word2vec::{Format, Word2VecConfig, WordVectors};
//! use std::{path::Path, sync::atomic::AtomicBool};
//!
//! # fn main() -> mm_repr::Result<()> {
//! let config = Word2VecConfig { vector_size: 100, window: 5, ..Word2VecConfig::default() };
//! let (files, stop) = (["corpus.txt".into()], AtomicBool::new(false));
//! if let Some(vectors) = WordVectors::train(&files, &config, None, Path::new("work"), &stop, &|_| {})? {
//!     println!("{:?}", vectors.most_similar("harpsichord", 10)?);
//!     vectors.save(Path::new("vectors.bin"), Format::Binary)?;
//! }
//! # Ok(())
//! # }
//! ```

mod config;
mod corpus;
mod encoder;
mod epoch;
mod evaluate;
mod formats;
mod huffman;
mod kernels;
mod phrases;
mod sampling;
mod sentences;
mod subwords;
mod train;
mod vectors;
mod vocabulary;
mod worker;

pub use config::{Architecture, Word2VecConfig};
pub use encoder::{Weighting, WordVectorsEncoder, WordVectorsProcessor};
pub use evaluate::{AnalogyResult, AnalogySection, WordPairResult};
pub use formats::Format;
pub use phrases::Phrases;
pub use subwords::SubwordConfig;
pub use train::Progress;
pub use vectors::WordVectors;
pub use vocabulary::Vocabulary;

#[cfg(test)]
mod tests;
