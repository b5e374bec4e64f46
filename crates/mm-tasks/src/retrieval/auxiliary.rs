//! Auxiliary losses: what they implement, and how rows of a batch are compared.

use mm_core::{Features, Modality, Tensor};
use mm_data::Batch;
use std::collections::{BTreeMap, HashMap};

/// A loss next to the contrastive ones, logged as `loss_<name>`.
pub(super) trait AuxiliaryLoss {
    /// The name.
    fn name(&self) -> &'static str;

    /// The weight; the weighted mean of the contrastive losses has weight 1.
    fn weight(&self) -> f64;

    /// The loss of a batch; `None` where too few of its rows have what the loss needs.
    fn loss(&self, encoded: &EncodedBatch<'_>, train: bool) -> mm_core::Result<Option<Tensor>>;
}

/// A batch and its features.
pub(super) struct EncodedBatch<'b> {
    pub(super) batch: &'b Batch,
    pub(super) features: BTreeMap<&'b Modality, TowerOutput>,
}

/// Features of one modality in a batch.
pub(super) struct TowerOutput {
    /// The encoder's embeddings, `[rows, dim]`.
    pub(super) embeddings: Tensor,
    /// The features of each position, where cross attention needs them.
    pub(super) positions: Option<Features>,
}

/// `[names, names]` bool: which names are equal.
pub(super) fn equality_matrix(names: &[&str]) -> mm_core::Result<Tensor> {
    let mut ids = HashMap::new();
    let each: Vec<i64> = names
        .iter()
        .map(|name| {
            let next = ids.len() as i64;
            *ids.entry(*name).or_insert(next)
        })
        .collect();
    let each = Tensor::from_slice(&each)?;
    each.unsqueeze(0)?.eq(&each.unsqueeze(1)?)
}

/// `[rows, rows]` bool: rows of a batch with the same item, which are not negatives of each other.
pub(super) fn match_matrix(batch: &Batch, rows: &[usize]) -> mm_core::Result<Tensor> {
    let items: Vec<&str> = rows.iter().map(|r| batch.items[*r].as_str()).collect();
    equality_matrix(&items)
}

/// The rows in both lists.
pub(super) fn common_rows(a: &[usize], b: &[usize]) -> Vec<usize> {
    a.iter().copied().filter(|r| b.contains(r)).collect()
}

/// The elements of `x`, which has one for each of `rows`, at `some` of these rows, in their order.
pub(super) fn select_rows(x: &Tensor, rows: &[usize], some: &[usize]) -> mm_core::Result<Tensor> {
    let positions: Vec<i64> = some.iter().filter_map(|r| rows.iter().position(|o| o == r)).map(|p| p as i64).collect();
    x.index_select(0, &Tensor::from_slice(&positions)?.to_device(x.device())?)
}
