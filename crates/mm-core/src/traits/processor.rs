//! Processors: raw values → tensors.

use super::Source;
use crate::{Result, Tensor, seed::Rng};

/// Context of the sample that a processor works on.
#[derive(Debug)]
pub struct ProcessContext {
    /// Enables augmentation.
    pub train: bool,
    /// Random numbers, a function of run seed, epoch and row.
    pub rng: Rng,
}

impl ProcessContext {
    /// A context without augmentation.
    pub fn eval() -> Self {
        Self { train: false, rng: Rng::new(&[0]) }
    }
}

/// Raw value → tensor of one sample. Runs in worker threads, ahead of the model.
pub trait Processor: Send + Sync {
    /// The tensor of one sample. Samples of a batch may differ in their first dimension only, which is then padded.
    ///
    /// # Errors
    /// If the value cannot be read or decoded.
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor>;

    /// The value of padding.
    fn pad_value(&self) -> f64 {
        0.0
    }

    /// Whether samples differ in their first dimension (tokens, frames), so that a batch needs padding and a mask.
    fn is_sequence(&self) -> bool;

    /// Batches of sequences are padded to a multiple of this length: fewer distinct shapes, whose plans and memory can
    /// be reused.
    fn pad_to_multiple_of(&self) -> i64 {
        1
    }

    /// Names of a sample's positions, where they are words or pieces of words, for display; empty otherwise.
    ///
    /// # Errors
    /// If the value cannot be read.
    fn token_names(&self, _source: &Source) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// How many samples were truncated so far, and the limit ("512 tokens").
    fn truncated(&self) -> Option<(usize, String)> {
        None
    }

    /// Whether [`Self::process`] augments in training in a way that [`Self::augment`] does not. Such samples are not
    /// cached in training.
    fn augments_while_decoding(&self) -> bool {
        false
    }

    /// A text that changes whenever the output would (before augmentation): the key of cached samples.
    fn fingerprint(&self) -> String;

    /// Augmentation of the tensor, so that it applies to cached samples too. [`Processor::process`] includes it.
    ///
    /// # Errors
    /// If the tensor has an unexpected shape.
    fn augment(&self, sample: Tensor, _context: &mut ProcessContext) -> Result<Tensor> {
        Ok(sample)
    }
}
