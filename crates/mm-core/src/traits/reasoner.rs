//! Reasoning over several modalities.

use crate::{FeatureSet, Features, Modality, Result, Tensor};

/// Attention of one reasoning step over one modality.
#[derive(Debug)]
pub struct AttentionStep {
    /// Index of the step.
    pub step: usize,
    /// The modality attended to.
    pub modality: Modality,
    /// Weight of each position, `[batch, positions]`.
    pub weights: Tensor,
}

/// Output of a [`Reasoner`].
#[derive(Debug)]
pub struct ReasonerOutput {
    /// `[batch, 1, dim]`.
    pub features: Features,
    /// Attention of each step.
    pub attention: Vec<AttentionStep>,
}

/// A network that answers a query in one modality from the others.
pub trait Reasoner {
    /// Features of the answer, from the modalities that each row has.
    ///
    /// # Errors
    /// If the features do not fit the network.
    fn reason(&self, set: &FeatureSet, train: bool) -> Result<ReasonerOutput>;

    /// Dimension of the answer's features.
    fn dim(&self) -> i64;
}
