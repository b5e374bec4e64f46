//! Word dropout: while training, tokens of a text are dropped at random.
//!
//! *Deep Unordered Composition Rivals Syntactic Methods for Text Classification* (Iyyer et al., 2015),
//! <https://aclanthology.org/P15-1162/>.

use mm_core::{Error, ProcessContext, Processor, Result, Source, Tensor};
use std::sync::Arc;

/// A text processor that drops tokens while training; the first and the last, which are special in most vocabularies,
/// stay.
pub struct WordDropout {
    inner: Arc<dyn Processor>,
    rate: f64,
}

impl WordDropout {
    /// Drops each token with probability `rate`.
    ///
    /// # Errors
    /// If the rate is not in [0, 1) or the processor's samples are not sequences.
    pub fn new(inner: Arc<dyn Processor>, rate: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&rate) {
            return Err(Error::config("word_dropout", rate, "a rate in [0, 1)"));
        }
        if !inner.is_sequence() {
            return Err(Error::config("word_dropout", "an encoder of another modality", "a text encoder"));
        }
        Ok(Self { inner, rate })
    }
}

impl Processor for WordDropout {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let sample = self.inner.process(source, &mut ProcessContext::eval())?;
        self.augment(sample, context)
    }

    fn pad_value(&self) -> f64 {
        self.inner.pad_value()
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn pad_to_multiple_of(&self) -> i64 {
        self.inner.pad_to_multiple_of()
    }

    fn token_names(&self, source: &Source) -> Result<Vec<String>> {
        self.inner.token_names(source)
    }

    fn truncated(&self) -> Option<(usize, String)> {
        self.inner.truncated()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> Result<Tensor> {
        if !context.train || self.rate == 0.0 {
            return Ok(sample);
        }
        let last = sample.size(0)? - 1;
        let kept: Vec<i64> =
            (0..=last).filter(|n| *n == 0 || *n == last || context.rng.uniform() >= self.rate).collect();
        sample.index_select(0, &Tensor::from_slice(&kept)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::seed::Rng;

    struct HundredTokens;

    impl Processor for HundredTokens {
        fn process(&self, _source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
            Tensor::from_slice(&(0..100i64).collect::<Vec<_>>())
        }
        fn is_sequence(&self) -> bool {
            true
        }
        fn fingerprint(&self) -> String {
            String::new()
        }
    }

    #[test]
    fn drops_tokens_only_while_training_and_never_the_first_or_last() {
        let dropout = WordDropout::new(Arc::new(HundredTokens), 0.3).unwrap();
        let text = Source::Text("x".into());
        assert_eq!(dropout.process(&text, &mut ProcessContext::eval()).unwrap().numel(), 100);
        let mut context = ProcessContext { train: true, rng: Rng::new(&[5]) };
        let kept = dropout.process(&text, &mut context).unwrap().to_vec::<i64>().unwrap();
        assert!((55..85).contains(&kept.len()), "{}", kept.len());
        assert!(kept[0] == 0 && kept.last() == Some(&99) && kept.is_sorted());
        assert!(WordDropout::new(Arc::new(HundredTokens), 1.0).is_err());
    }
}
