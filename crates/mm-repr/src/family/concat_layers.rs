//! Features of several layers of one encoder, concatenated.

use super::model::PretrainedEncoder;
use mm_core::{Encoder, Features, Input, Modality, Result, Tensor};

/// An encoder whose features are the hidden states of some layers, concatenated. Layers before the last keep
/// information that the last one, trained for meaning, may have dropped, such as syntax and sentiment.
///
/// *BERT Rediscovers the Classical NLP Pipeline* (Tenney, Das, Pavlick, 2019), <https://arxiv.org/abs/1905.05950>.
pub struct ConcatLayers {
    inner: Box<dyn PretrainedEncoder>,
    layers: Vec<usize>,
}

impl ConcatLayers {
    /// Uses these layers of an encoder; 0 is the input of the first block.
    pub fn new(inner: Box<dyn PretrainedEncoder>, layers: Vec<usize>) -> Self {
        Self { inner, layers }
    }
}

impl Encoder for ConcatLayers {
    fn encode(&self, input: &Input, _train: bool) -> Result<Features> {
        let expected = "a family that exposes its hidden states (text encoders)";
        let states = self
            .inner
            .hidden_states(input)?
            .ok_or_else(|| mm_core::Error::config("encoder.layers", "a family without hidden states", expected))?;
        let last = states.len() - 1;
        let select = |layer: &usize| {
            let state = states.get(*layer).map(|s| &s.values);
            state.ok_or_else(|| mm_core::Error::config("encoder.layers", layer, format!("0 to {last}")))
        };
        let selected = self.layers.iter().map(select).collect::<Result<Vec<_>>>()?;
        Features::new(Tensor::cat(&selected, -1)?, states[0].mask.clone())
    }

    fn dim(&self) -> i64 {
        self.inner.dim() * self.layers.len() as i64
    }

    fn modality(&self) -> Modality {
        self.inner.modality()
    }
}
