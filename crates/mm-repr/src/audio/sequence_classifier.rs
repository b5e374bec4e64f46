//! transformers' classification head for sequences of audio features.

use crate::{Result, family::ModelBuilder};
use mm_core::{
    Features, Init, Module, Pooling, Tensor,
    nn::{ForwardArgs, Linear, Mask, Transformer},
};

/// Optionally a learned weighted sum of all layers; then projection, mean over positions, classifier.
pub(crate) struct SequenceClassifier {
    layer_weights: Option<LayerWeights>,
    projector: Linear,
    classifier: Linear,
}

struct LayerWeights {
    weights: Tensor,
    /// Whether the last layer enters the sum after the final norm.
    normalize_last: bool,
}

impl SequenceClassifier {
    /// The head, if the checkpoint has one and no single layer was requested. transformers 5 adds the last layer to the
    /// weighted sum as it is for Wav2Vec2 and HuBERT, and after the final norm (`normalize_last`) for Whisper.
    pub(crate) fn new(b: &ModelBuilder<'_>, dim: i64, num_layers: i64, normalize_last: bool) -> Result<Option<Self>> {
        let (projector, classifier) = (b.scope.pp("projector"), b.scope.pp("classifier"));
        if b.layer.is_some() || !projector.has("weight") || !classifier.has("weight") {
            return Ok(None);
        }
        let hidden_dim = b.config["classifier_proj_size"].as_i64().unwrap_or(256);
        let weighted = b.config["use_weighted_layer_sum"].as_bool().unwrap_or(false);
        let uniform = Init::Constant(1.0 / (num_layers + 1) as f64);
        let weights = weighted.then(|| b.scope.param("layer_weights", &[num_layers + 1], uniform)).transpose()?;
        Ok(Some(Self {
            layer_weights: weights.map(|weights| LayerWeights { weights, normalize_last }),
            projector: Linear::new(&projector, dim, hidden_dim, true)?,
            classifier: Linear::new(&classifier, hidden_dim, b.num_labels(), true)?,
        }))
    }

    /// Runs the blocks on their input `[batch, length, dim]` with the mask of valid positions → `[batch, classes]`.
    pub(crate) fn logits(&self, blocks: &Transformer, x: &Tensor, mask: Option<&Tensor>) -> mm_core::Result<Tensor> {
        let padding = mask.cloned().map(Mask::Padding);
        let x = match &self.layer_weights {
            None => blocks.forward(x, ForwardArgs { mask: padding.as_ref(), ..ForwardArgs::default() })?,
            Some(LayerWeights { weights, normalize_last }) => {
                let mut states = blocks.hidden_states(x, padding.as_ref(), false)?;
                if let (true, Some(last)) = (*normalize_last, states.last_mut()) {
                    *last = blocks.apply_final_norm(last, false)?;
                }
                let all = Tensor::stack(&states.iter().collect::<Vec<_>>(), -1)?; // [batch, length, dim, layers + 1]
                all.matmul(&weights.softmax(-1)?.unsqueeze(-1)?)?.squeeze(-1)?
            }
        };
        let x = Features::new(self.projector.forward(&x, false)?, mask.cloned())?.pool(Pooling::Mean)?;
        self.classifier.forward(&x, false)
    }
}
