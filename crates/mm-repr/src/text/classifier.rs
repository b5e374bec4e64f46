//! The classification heads of transformers' `…ForSequenceClassification` for text: two layers on the first token.

use crate::{Result, family::ModelBuilder};
use mm_core::{
    Module, Tensor,
    nn::{Activation, Linear},
};

/// Scope of the layers that a checkpoint has outside of its encoder, where there is no encoder's prefix.
pub(super) const HEAD: &str = "head.";

/// What the names of a head's architectures end with; those of other heads (`…ForTokenClassification`,
/// `…ForMultipleChoice`) may have layers of the same names.
const ARCHITECTURE: &str = "ForSequenceClassification";

/// Names and activation of a family's head.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLayout {
    dense: &'static str,
    activation: Activation,
    output: &'static str,
}

impl HeadLayout {
    /// BERT: the pooler, which belongs to the encoder, then the classifier.
    pub(super) const BERT: Self =
        Self { dense: "pooler.dense", activation: Activation::Tanh, output: "head.classifier" };
    /// DistilBERT.
    pub(super) const DISTILBERT: Self =
        Self { dense: "head.pre_classifier", activation: Activation::Relu, output: "head.classifier" };
    /// RoBERTa, XLM-RoBERTa, CamemBERT and MPNet.
    pub(super) const ROBERTA: Self =
        Self { dense: "head.classifier.dense", activation: Activation::Tanh, output: "head.classifier.out_proj" };
}

/// Features of the first token → a layer, its activation, and the layer that gives the scores.
pub(super) struct TextClassifier {
    dense: Linear,
    activation: Activation,
    output: Linear,
}

impl TextClassifier {
    /// The head, if the checkpoint has one and no single layer was requested.
    pub(super) fn new(b: &ModelBuilder<'_>, layout: HeadLayout, dim: i64) -> Result<Option<Self>> {
        let output = b.scope.pp(layout.output);
        let stated = b.config["architectures"].as_array().into_iter().flatten().filter_map(|name| name.as_str());
        let is_classifier = stated.into_iter().any(|name| name.ends_with(ARCHITECTURE));
        if b.layer.is_some() || !is_classifier || !output.has("weight") {
            return Ok(None);
        }
        Ok(Some(Self {
            dense: Linear::new(&b.scope.pp(layout.dense), dim, dim, true)?,
            activation: layout.activation,
            output: Linear::new(&output, dim, b.num_labels(), true)?,
        }))
    }

    /// Class scores before softmax `[batch, classes]` of features `[batch, length, dim]`.
    pub(super) fn logits(&self, features: &Tensor) -> mm_core::Result<Tensor> {
        let first = features.select(1, 0)?;
        self.output.forward(&self.activation.apply(&self.dense.forward(&first, false)?)?, false)
    }
}
