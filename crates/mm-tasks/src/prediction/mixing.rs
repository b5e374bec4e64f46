//! Mixing of rows during training: manifold mixup and `CutMix`.

use super::network::{EncodedBatch, NetworkInput};
use mm_core::{DType, Device, Input, Result, Tensor, distributed::shared_random, seed::Rng};

/// How the rows of a batch were mixed.
pub(super) struct Mixed {
    /// The row that each row was mixed with.
    pub(super) partners: Vec<i64>,
    /// The share of each row itself; the partner has the rest.
    pub(super) share: f64,
}

/// A generator seeded from libtorch's, and so a function of the run's seed and step.
fn step_rng() -> Result<Rng> {
    Ok(Rng::new(&[shared_random()?.to_bits()]))
}

/// Mixes the features of each modality in rows that both have it (manifold mixup).
pub(super) fn mixup(batch: &mut EncodedBatch, alpha: f64) -> Result<Mixed> {
    let mut rng = step_rng()?;
    let mut partners: Vec<i64> = (0..batch.rows).collect();
    rng.shuffle(&mut partners);
    let share = mm_data::augment::sample_beta(alpha, &mut rng);
    let device = batch.branches.values().next().map_or(Device::Cpu, |b| b.features.values.device());
    let other = Tensor::from_slice(&partners)?.to_device(device)?;
    for branch in batch.branches.values_mut() {
        let both = branch.present.logical_and(&branch.present.index_select(0, &other)?)?;
        let part = both.to_dtype(DType::F32)?.mul_scalar(1.0 - share)?.reshape(&[-1, 1, 1])?;
        let features = &mut branch.features;
        let theirs = features.values.index_select(0, &other)?;
        features.values = features.values.add(&theirs.sub(&features.values)?.mul(&part)?)?;
        if let Some(mask) = &features.mask {
            features.mask = Some(mask.logical_or(&mask.index_select(0, &other)?)?);
        }
    }
    Ok(Mixed { partners, share })
}

/// Pastes rectangles of other rows' images; `None`, and nothing is changed, unless images of all rows are the only
/// input.
pub(super) fn cutmix(input: &mut NetworkInput<'_>, alpha: f64) -> Result<Option<Mixed>> {
    let rows = input.items.len();
    let [(modality, (images, which))] = input.parts.iter().collect::<Vec<_>>()[..] else { return Ok(None) };
    if input.precomputed.contains(*modality) || images.values.rank() != 4 || which.len() != rows {
        return Ok(None);
    }
    let (values, partners, share) = mm_data::augment::cutmix(&images.values, alpha, &mut step_rng()?)?;
    // Images are in the order of `which`; partners are named by row.
    let mut by_row = vec![0i64; rows];
    which.iter().zip(&partners).for_each(|(row, partner)| by_row[*row] = which[*partner as usize] as i64);
    let mixed = (Input { values, mask: images.mask.clone() }, which.clone());
    let modality = *modality;
    input.parts.insert(modality, mixed);
    Ok(Some(Mixed { partners: by_row, share }))
}
