//! Batches that move from a worker thread to the one that iterates.

use super::batch::{Batch, ModalityBatch};
use mm_core::{Input, Modality, Result, SendTensor, Tensor};
use std::collections::BTreeMap;

struct SendModality {
    values: SendTensor,
    mask: Option<SendTensor>,
    rows: Vec<usize>,
    source_index: Vec<usize>,
}

/// A [`Batch`] whose tensors nothing else refers to.
pub(super) struct SendBatch {
    index: usize,
    rows: Vec<usize>,
    ids: Vec<String>,
    items: Vec<String>,
    modalities: BTreeMap<Modality, SendModality>,
    is_shard: bool,
}

impl Batch {
    pub(super) fn into_send(self) -> Result<SendBatch> {
        let Self { index, rows, ids, items, modalities, is_shard, whole: _ } = self;
        let send = |(modality, part): (Modality, ModalityBatch)| {
            let ModalityBatch { input: Input { values, mask }, rows, source_index } = part;
            let mask = mask.map(Tensor::into_send).transpose()?;
            Ok((modality, SendModality { values: values.into_send()?, mask, rows, source_index }))
        };
        let modalities = modalities.into_iter().map(send).collect::<Result<_>>()?;
        Ok(SendBatch { index, rows, ids, items, modalities, is_shard })
    }
}

impl From<SendBatch> for Batch {
    fn from(sent: SendBatch) -> Self {
        let receive = |(modality, part): (Modality, SendModality)| {
            let input = Input { values: part.values.into(), mask: part.mask.map(Tensor::from) };
            (modality, ModalityBatch { input, rows: part.rows, source_index: part.source_index })
        };
        let SendBatch { index, rows, ids, items, modalities, is_shard } = sent;
        let modalities = modalities.into_iter().map(receive).collect();
        Self { index, rows, ids, items, modalities, is_shard, whole: None }
    }
}
