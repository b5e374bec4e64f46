//! Training and test rows.

use crate::{Error, Result};
use mm_align::PairedFeatures;
use mm_core::{DType, Tensor, seed::Rng};

/// Fewest known pairs that a method can be fitted on.
pub(super) const MIN_PAIRS: i64 = 4;

/// Checks two feature arrays `[rows, dim]` and optional int64 labels `[rows]`. Labels keep their values;
/// [`index_labels`] makes them class indices.
///
/// # Errors
/// When an array is not float, not finite, or the row counts differ.
pub fn paired_features(a: &Tensor, b: &Tensor, labels: Option<&Tensor>) -> Result<PairedFeatures> {
    let mut pairs = PairedFeatures::new(a, b)?;
    pairs.labels = labels.map(|l| label_values(l, a.size(0)?)).transpose()?;
    Ok(pairs)
}

pub(super) fn label_values(labels: &Tensor, rows: i64) -> Result<Vec<i64>> {
    let flat = labels.squeeze(-1).ok().filter(|l| l.rank() == 1).unwrap_or_else(|| labels.clone());
    if flat.rank() != 1 || flat.size(0)? != rows || flat.dtype()? != DType::I64 {
        let found = format!("{:?} {:?}", labels.dtype()?, labels.shape());
        return Err(Error::Config(format!("labels: found {found}, expected int64 [{rows}], one per row")));
    }
    Ok(flat.to_vec::<i64>()?)
}

/// Replaces label values by class indices 0, 1, 2 … that all sets share.
pub fn index_labels(sets: &mut [&mut Option<Vec<i64>>]) {
    let mut values: Vec<i64> = sets.iter().flat_map(|l| l.iter().flatten().copied()).collect();
    values.sort_unstable();
    values.dedup();
    for labels in sets.iter_mut().filter_map(|l| l.as_mut()) {
        labels.iter_mut().for_each(|l| *l = values.binary_search(l).unwrap_or(0) as i64);
    }
}

/// Selects `num_pairs` random pairs by a seed; the rest become unpaired rows in two independent orders.
///
/// # Errors
/// When `num_pairs` is below 4 or above the number of rows.
pub fn subsample_pairs(pairs: &PairedFeatures, num_pairs: usize, seed: u64) -> Result<PairedFeatures> {
    let rows = pairs.rows()?;
    if (num_pairs as i64) < MIN_PAIRS || num_pairs as i64 > rows {
        return Err(Error::Config(format!(
            "number of pairs: found {num_pairs}, expected {MIN_PAIRS} to {rows}, the rows to fit on"
        )));
    }
    let mut order: Vec<i64> = (0..rows).collect();
    Rng::new(&[seed, 31]).shuffle(&mut order);
    let (selected, rest) = order.split_at(num_pairs);
    let mut other_order = rest.to_vec();
    Rng::new(&[seed, 37]).shuffle(&mut other_order);
    let select = |x: &Tensor, rows: &[i64]| x.index_select(0, &Tensor::from_slice(rows)?);
    let unpaired = Some([select(&pairs.a, rest)?, select(&pairs.b, &other_order)?]);
    Ok(PairedFeatures { unpaired, ..pairs.select(selected)? })
}

/// Holds out a seeded fraction of the pairs: (the rest, the held-out part).
///
/// # Errors
/// With fewer than two rows.
pub fn hold_out(pairs: &PairedFeatures, fraction: f64, seed: u64) -> Result<(PairedFeatures, PairedFeatures)> {
    let rows = pairs.rows()?;
    if rows < 2 {
        return Err(Error::Config(format!("rows: found {rows}, expected at least 2 to hold one out")));
    }
    let held_out = ((rows as f64 * fraction).round() as i64).clamp(1, rows - 1) as usize;
    let mut order: Vec<i64> = (0..rows).collect();
    Rng::new(&[seed, 29]).shuffle(&mut order);
    Ok((pairs.select(&order[held_out..])?, pairs.select(&order[..held_out])?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::Device;

    fn pairs(rows: i64) -> PairedFeatures {
        let x =
            Tensor::arange(0, rows, Device::Cpu).unwrap().to_dtype(DType::F32).unwrap().reshape(&[rows, 1]).unwrap();
        paired_features(&x, &x, None).unwrap()
    }

    #[test]
    fn held_out_rows_stay_paired_and_are_not_trained_on() {
        let (train, test) = hold_out(&pairs(20), 0.2, 1).unwrap();
        let values = |x: &Tensor| x.to_vec::<f64>().unwrap();
        assert_eq!((values(&train.a), values(&test.a).len()), (values(&train.b), 4));
        assert!(values(&test.a).iter().all(|v| !values(&train.a).contains(v)));
        assert!(hold_out(&pairs(1), 0.2, 1).unwrap_err().to_string().contains("at least 2"));
    }

    #[test]
    fn subsampling_leaves_the_other_rows_unpaired() {
        let few = subsample_pairs(&pairs(20), 5, 1).unwrap();
        let [a, b] = few.unpaired.as_ref().unwrap();
        assert_eq!((few.rows().unwrap(), a.size(0).unwrap(), b.size(0).unwrap()), (5, 15, 15));
        assert_ne!(a.to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
        assert!(subsample_pairs(&pairs(20), 3, 1).is_err() && subsample_pairs(&pairs(20), 21, 1).is_err());
    }

    #[test]
    fn label_values_become_shared_class_indices() {
        let (mut train, mut test) = (Some(vec![7, 3, 7]), Some(vec![9, 3]));
        index_labels(&mut [&mut train, &mut test]);
        assert_eq!((train, test), (Some(vec![1, 0, 1]), Some(vec![2, 0])));
    }
}
