//! Input of the network, and how it is run.

use mm_core::{Input, Modality};
use std::collections::{BTreeMap, BTreeSet};

/// The inputs of a batch of rows.
#[derive(Clone)]
pub(in super::super) struct NetworkInput<'a> {
    /// For each modality, the processed values, and the rows (positions in the batch) that these belong to.
    pub(in super::super) parts: BTreeMap<&'a Modality, (Input, Vec<usize>)>,
    /// The modalities whose values are embeddings of a frozen encoder already.
    pub(in super::super) precomputed: &'a BTreeSet<Modality>,
    /// The item of each row.
    pub(in super::super) items: &'a [String],
}

/// How the network is run.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct ForwardOptions<'a> {
    /// Whether dropout and noise are applied.
    pub(in super::super) train: bool,
    /// Gaussian noise on the features of one modality outside training, in their standard deviations.
    pub(in super::super) feature_noise: Option<(&'a Modality, f64)>,
    /// Whether Grad-CAM is computed.
    pub(in super::super) saliency: bool,
}
