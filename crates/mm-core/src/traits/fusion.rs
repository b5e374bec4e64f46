//! Fusion of several modalities, and reasoning over them.

use crate::{FeatureSet, Features, Modality, Result, Tensor};
use std::collections::BTreeMap;

/// Output of a [`FusionOperator`].
#[derive(Debug)]
pub struct FusionOutput {
    /// `[batch, length, dim]`.
    pub features: Features,
    /// A scalar to be minimized together with the task's loss, if the operator has one (MISA, mixture of experts).
    pub aux_loss: Option<Tensor>,
    /// Weight of each modality in each row, `[batch]` each, if the operator reports it.
    pub modality_weights: BTreeMap<Modality, Tensor>,
}

impl FusionOutput {
    /// Features without a loss or weights.
    pub fn new(features: Features) -> Self {
        Self { features, aux_loss: None, modality_weights: BTreeMap::new() }
    }
}

/// Features of several modalities → features of all.
pub trait FusionOperator: Send {
    /// Fused features `[batch, length, dim]` of the modalities that each row has; rows do not affect each other.
    ///
    /// # Errors
    /// If the features do not fit the operator.
    fn fuse(&self, set: &FeatureSet, train: bool) -> Result<FusionOutput>;

    /// Dimension of the fused features.
    fn dim(&self) -> i64;
}

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
pub trait Reasoner: Send {
    /// Features of the answer, from the modalities that each row has.
    ///
    /// # Errors
    /// If the features do not fit the network.
    fn reason(&self, set: &FeatureSet, train: bool) -> Result<ReasonerOutput>;

    /// Dimension of the answer's features.
    fn dim(&self) -> i64;
}
