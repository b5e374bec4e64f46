//! Batches: samples collated into padded inputs.

use crate::Result;
use mm_core::{DType, Device, Input, Modality, Processor, Tensor};
use std::{collections::BTreeMap, rc::Rc};

/// One modality of a batch: the rows that have it, and their values.
#[derive(Debug, Clone)]
pub struct ModalityBatch {
    /// The values `[rows with the modality, …]`, with a mask where they are sequences of several lengths.
    pub input: Input,
    /// The positions in the batch of the rows that have the modality, ascending.
    pub rows: Vec<usize>,
    /// The index of the value that was taken of each of these rows.
    pub source_index: Vec<usize>,
}

/// A batch: rows of a data set, each with the modalities that it has.
#[derive(Debug, Clone)]
pub struct Batch {
    /// The batch's index in its epoch.
    pub index: usize,
    /// The rows' indices in the data set.
    pub rows: Vec<usize>,
    /// The rows' ids, for messages.
    pub ids: Vec<String>,
    /// Item of each row, the identity of what it shows: rows of the same item match each other in retrieval.
    pub items: Vec<String>,
    /// The modalities that at least one row has.
    pub modalities: BTreeMap<Modality, ModalityBatch>,
    /// Whether other processes have the other rows of the batch ([`LoaderBuilder::shard`](super::LoaderBuilder::shard)).
    pub is_shard: bool,
    /// The rows of the whole batch, after [`Batch::synchronized`].
    pub(super) whole: Option<Rc<Self>>,
}

impl Batch {
    /// The rows that have all of `modalities`, as positions in [`Batch::rows`], and their values of each modality on
    /// `device`; `None` when no row has all.
    pub fn rows_with_all(
        &self,
        modalities: &[&Modality],
        device: Device,
    ) -> mm_core::Result<Option<(Vec<usize>, Vec<Input>)>> {
        let Some(parts) = modalities.iter().map(|m| self.modalities.get(m)).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let position = |part: &ModalityBatch, row: usize| part.rows.iter().position(|r| *r == row);
        let rows: Vec<usize> =
            (0..self.rows.len()).filter(|row| parts.iter().all(|p| position(p, *row).is_some())).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let select = |part: &&ModalityBatch| -> mm_core::Result<Input> {
            let indices: Vec<i64> = rows.iter().filter_map(|r| position(part, *r)).map(|n| n as i64).collect();
            let indices = Tensor::from_slice(&indices)?.to_device(device)?;
            let take = |t: &Tensor| t.to_device(device)?.index_select(0, &indices);
            Ok(Input { values: take(&part.input.values)?, mask: part.input.mask.as_ref().map(take).transpose()? })
        };
        let inputs = parts.iter().map(select).collect::<mm_core::Result<_>>()?;
        Ok(Some((rows, inputs)))
    }
}

/// Samples → one input: stacked to `[batch, …]`; sequences of several lengths are padded to `[batch, length, …]` with a
/// boolean mask `[batch, length]` that is true where there are values.
///
/// # Errors
/// When the shapes differ in more than the length of sequences.
pub fn collate(samples: &[Tensor], processor: &dyn Processor) -> Result<Input> {
    let all: Vec<&Tensor> = samples.iter().collect();
    if !processor.is_sequence() {
        return Ok(Input { values: Tensor::stack_single_threaded(&all)?, mask: None });
    }
    let lengths = samples.iter().map(|s| s.size(0)).collect::<Result<Vec<i64>, _>>()?;
    let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
    let multiple = processor.pad_to_multiple_of().max(1);
    let longest = (longest + multiple - 1) / multiple * multiple;
    if lengths.iter().all(|l| *l == longest) {
        return Ok(Input { values: Tensor::stack_single_threaded(&all)?, mask: None });
    }
    let mut padded = Vec::with_capacity(samples.len());
    for (sample, length) in samples.iter().zip(&lengths) {
        // `pad` takes (before, after) for each dimension from the last to the first; the length is the first dimension.
        let mut pad = vec![0; 2 * sample.rank()];
        if let Some(after_first) = pad.last_mut() {
            *after_first = longest - length;
        }
        padded.push(sample.pad(&pad, processor.pad_value())?);
    }
    let values = Tensor::stack_single_threaded(&padded.iter().collect::<Vec<_>>())?;
    let positions = Tensor::arange(0, longest, Device::Cpu)?;
    let mask = positions.lt(&Tensor::from_slice(&lengths)?.unsqueeze(1)?)?; // [batch, longest]
    Ok(Input { values, mask: Some(mask.to_dtype(DType::Bool)?) })
}
