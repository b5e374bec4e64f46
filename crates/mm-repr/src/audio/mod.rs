//! Sound encoders.

mod cnn;
mod processors;
pub(crate) mod wav2vec2;
pub mod whisper;

pub use cnn::{AudioCnn, AudioCnnConfig};
pub use processors::SpectrogramProcessor;
pub(crate) use processors::WaveProcessor;

use crate::{Result, family::ModelBuilder};
use mm_core::{
    Features, Init, Module, Pooling, Tensor,
    nn::{ForwardArgs, Linear, Mask, Transformer},
};

/// How transformers classifies sequences of sound: maybe a learned mean of all blocks' features, projected, averaged, classified.
pub(crate) struct SequenceHead {
    /// Weights of the learned mean, and whether its last features are normalised first.
    layers: Option<(Tensor, bool)>,
    projector: Linear,
    classifier: Linear,
}

impl SequenceHead {
    /// The head, where the checkpoint has one and no single layer was asked for. transformers 5 takes the last block's features
    /// into the mean as they are for Wav2Vec2 and `HuBERT`, normalised for Whisper.
    pub(crate) fn new(b: &ModelBuilder<'_>, width: i64, layers: i64, normalized: bool) -> Result<Option<Self>> {
        let (projector, classifier) = (b.scope.pp("projector"), b.scope.pp("classifier"));
        if b.layer.is_some() || !projector.has("weight") || !classifier.has("weight") {
            return Ok(None);
        }
        let inner = b.config["classifier_proj_size"].as_i64().unwrap_or(256);
        let weighted = b.config["use_weighted_layer_sum"].as_bool().unwrap_or(false);
        let start = Init::Constant(1.0 / (layers + 1) as f64);
        Ok(Some(Self {
            layers: weighted
                .then(|| b.scope.param("layer_weights", &[layers + 1], start))
                .transpose()?
                .map(|w| (w, normalized)),
            projector: Linear::new(&projector, width, inner, true)?,
            classifier: Linear::new(&classifier, inner, b.num_labels(), true)?,
        }))
    }

    /// What goes into the first block, `[batch, length, width]`, and which of its positions count → `[batch, classes]`.
    pub(crate) fn logits(&self, blocks: &Transformer, x: &Tensor, mask: Option<&Tensor>) -> mm_core::Result<Tensor> {
        let attended = mask.cloned().map(Mask::Padding);
        let x = match &self.layers {
            None => blocks.forward(x, ForwardArgs { mask: attended.as_ref(), ..ForwardArgs::default() })?,
            Some((weights, normalized)) => {
                let mut states = blocks.hidden_states(x, attended.as_ref(), false)?;
                if let (true, Some(last)) = (*normalized, states.last_mut()) {
                    *last = blocks.apply_final_norm(last, false)?;
                }
                let all = Tensor::stack(&states.iter().collect::<Vec<_>>(), -1)?; // [batch, length, width, layers + 1]
                all.matmul(&weights.softmax(-1)?.unsqueeze(-1)?)?.squeeze(-1)?
            }
        };
        let x = Features::new(self.projector.forward(&x, false)?, mask.cloned())?.pool(Pooling::Mean)?;
        self.classifier.forward(&x, false)
    }
}
