//! fastText's models.

use super::word2vec::load;
use mm_repr::word2vec::Format;

/// Reads a model. It is written as a model again and read back the same.
pub fn read(input: &[u8]) {
    load(input, &[Format::FastText]);
}
