//! Parts of a set of inputs.

use crate::Result;
use mm_core::{Device, Input, InputSet, Tensor};
use std::collections::BTreeMap;

/// Rows that go through a network together.
const CHUNK_ROWS: i64 = 256;

/// Some rows of a set, by index.
pub(super) fn select(set: &InputSet, indices: &Tensor) -> Result<InputSet> {
    let mut parts = BTreeMap::new();
    for (modality, (input, present)) in &set.parts {
        let indices = indices.to_device(present.device())?;
        let values = input.values.index_select(0, &indices)?;
        parts.insert(modality.clone(), (Input { values, mask: None }, present.index_select(0, &indices)?));
    }
    Ok(InputSet { rows: indices.numel() as i64, parts, labels: None })
}

/// A set in chunks that fit into memory with any network.
pub(super) fn chunks(set: &InputSet) -> Result<Vec<InputSet>> {
    (0..set.rows)
        .step_by(CHUNK_ROWS as usize)
        .map(|start| select(set, &Tensor::arange(start, (start + CHUNK_ROWS).min(set.rows), Device::Cpu)?))
        .collect()
}
