//! Batches of which each of several processes has a part ([`LoaderBuilder::shard`](super::LoaderBuilder::shard)).

use super::batch::{Batch, ModalityBatch};
use crate::{Error, Result};
use mm_core::{
    DType, Device, Input, Modality, Tensor,
    distributed::{ProcessGroup, gather_values, process_group},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

/// What a process says about its part of a batch.
#[derive(Clone, Serialize, Deserialize)]
struct PartHeader {
    rows: Vec<usize>,
    ids: Vec<String>,
    items: Vec<String>,
    modalities: BTreeMap<String, ModalityHeader>,
}

#[derive(Clone, Serialize, Deserialize)]
struct ModalityHeader {
    rows: Vec<usize>,
    source_index: Vec<usize>,
    shape: Vec<i64>,
    dtype: DType,
    has_mask: bool,
}

impl PartHeader {
    fn of(batch: &Batch) -> Result<Self> {
        let header = |part: &ModalityBatch| -> Result<ModalityHeader> {
            Ok(ModalityHeader {
                rows: part.rows.clone(),
                source_index: part.source_index.clone(),
                shape: part.input.values.shape(),
                dtype: part.input.values.dtype()?,
                has_mask: part.input.mask.is_some(),
            })
        };
        let modalities = batch.modalities.iter().map(|(m, part)| Ok((m.to_string(), header(part)?)));
        Ok(Self {
            rows: batch.rows.clone(),
            ids: batch.ids.clone(),
            items: batch.items.clone(),
            modalities: modalities.collect::<Result<_>>()?,
        })
    }
}

impl Batch {
    /// This process's part, ready for losses over the rows of all processes: sequences are padded to the longest of
    /// all. Where a process has no row, or none of a modality that others have, every process gets the whole batch
    /// instead. Batches that are no part are returned as they are.
    ///
    /// # Errors
    /// When a process ended or does not come, or the values of the processes have different shapes.
    pub fn synchronized(self) -> Result<Self> {
        let Some(group) = process_group().filter(|_| self.is_shard) else { return Ok(self) };
        let headers = gather_values(group.as_ref(), &PartHeader::of(&self)?)?;
        let own: BTreeSet<&String> = headers[group.rank()].modalities.keys().collect();
        let is_alike = |h: &PartHeader| !h.rows.is_empty() && h.modalities.keys().collect::<BTreeSet<_>>() == own;
        if headers.iter().all(is_alike) {
            return self.padded(&headers);
        }
        self.gathered(&headers, &group)
    }

    /// The rows of the whole batch, without values; of a batch that is no part of another, the batch itself.
    pub fn whole(&self) -> &Self {
        self.whole.as_deref().unwrap_or(self)
    }

    fn padded(mut self, headers: &[PartHeader]) -> Result<Self> {
        for (modality, part) in &mut self.modalities {
            if let Some(longest) = longest_sequence(headers, modality.name()) {
                part.input = pad_sequences(&part.input, longest)?;
            }
        }
        let mut whole = whole_batch(self.index, headers);
        for (modality, [rows, source_index]) in columns(headers) {
            let input = Input { values: Tensor::zeros(&[0], DType::F32, Device::Cpu)?, mask: None };
            whole.modalities.insert(modality, ModalityBatch { input, rows, source_index });
        }
        self.whole = Some(Rc::new(whole));
        Ok(self)
    }

    fn gathered(&self, headers: &[PartHeader], group: &Rc<dyn ProcessGroup>) -> Result<Self> {
        let mut whole = whole_batch(self.index, headers);
        for (modality, [rows, source_index]) in columns(headers) {
            let longest = longest_sequence(headers, modality.name());
            let input = match self.modalities.get(&modality) {
                Some(part) => longest.map_or_else(|| Ok(part.input.clone()), |l| pad_sequences(&part.input, l))?,
                None => empty_input(headers, modality.name(), longest)?,
            };
            let values = group.gather_rows(&input.values)?.0;
            let mask = input.mask.map(|mask| -> Result<Tensor> {
                let bytes = group.gather_rows(&mask.to_dtype(DType::U8)?)?.0;
                Ok(bytes.to_dtype(DType::Bool)?)
            });
            let input = Input { values, mask: mask.transpose()? };
            whole.modalities.insert(modality, ModalityBatch { input, rows, source_index });
        }
        Ok(whole)
    }
}

fn whole_batch(index: usize, headers: &[PartHeader]) -> Batch {
    Batch {
        index,
        rows: headers.iter().flat_map(|h| h.rows.clone()).collect(),
        ids: headers.iter().flat_map(|h| h.ids.clone()).collect(),
        items: headers.iter().flat_map(|h| h.items.clone()).collect(),
        modalities: BTreeMap::new(),
        is_shard: false,
        whole: None,
    }
}

/// Of each modality of the whole batch, the rows that have it and the indices of their values.
fn columns(headers: &[PartHeader]) -> BTreeMap<Modality, [Vec<usize>; 2]> {
    let mut columns: BTreeMap<Modality, [Vec<usize>; 2]> = BTreeMap::new();
    let mut first = 0;
    for header in headers {
        for (name, part) in &header.modalities {
            let [rows, source_index] = columns.entry(Modality::from(name.as_str())).or_default();
            rows.extend(part.rows.iter().map(|row| first + row));
            source_index.extend(&part.source_index);
        }
        first += header.rows.len();
    }
    columns
}

/// The length of the longest sequences of a modality; `None` where its values are no sequences of different lengths.
fn longest_sequence(headers: &[PartHeader], modality: &str) -> Option<i64> {
    let parts = || headers.iter().filter_map(|h| h.modalities.get(modality));
    let length = |part: &ModalityHeader| part.shape.get(1).copied();
    let longest = parts().filter_map(length).max()?;
    let differs = parts().any(|part| part.has_mask || length(part) != Some(longest));
    differs.then_some(longest)
}

/// Sequences `[rows, length, …]`, padded to a length with zeros that the mask excludes.
fn pad_sequences(input: &Input, longest: i64) -> Result<Input> {
    let (rows, length) = (input.values.size(0)?, input.values.size(1)?);
    let mask = match &input.mask {
        Some(mask) => mask.clone(),
        None => Tensor::ones(&[rows, length], DType::F32, input.values.device())?.to_dtype(DType::Bool)?,
    };
    if length == longest {
        return Ok(Input { values: input.values.clone(), mask: Some(mask) });
    }
    // From the last dimension to the first, (before, after) of each; the length is the second.
    let mut pad = vec![0; 2 * (input.values.rank() - 1)];
    if let Some(after) = pad.last_mut() {
        *after = longest - length;
    }
    let zeros = Tensor::zeros(&[rows, longest - length], DType::F32, mask.device())?.to_dtype(DType::Bool)?;
    Ok(Input { values: input.values.pad(&pad, 0.0)?, mask: Some(Tensor::cat(&[&mask, &zeros], 1)?) })
}

/// The input of a process without rows of a modality that others have.
fn empty_input(headers: &[PartHeader], modality: &str, longest: Option<i64>) -> Result<Input> {
    let found = headers.iter().find_map(|h| h.modalities.get(modality));
    let found = found.ok_or_else(|| Error::Config(format!("no process has a row with {modality}")))?;
    let mut shape = found.shape.clone();
    shape[0] = 0;
    if let Some(longest) = longest {
        shape[1] = longest;
    }
    let mask = longest.map(|l| Tensor::zeros(&[0, l], DType::F32, Device::Cpu)?.to_dtype(DType::Bool)).transpose()?;
    Ok(Input { values: Tensor::zeros(&shape, found.dtype, Device::Cpu)?, mask })
}
