//! Stacking (Wolpert 1992): a model over what the models say. Here is what its input is and how rows are folded so that it never sees a
//! prediction of a model for a row that the model was trained on; the model over them is the caller's.

use crate::{Error, Result};
use mm_core::{DType, Tensor, seed::Rng};
use std::collections::BTreeMap;

/// Logarithms of the probabilities, zero where a model says nothing, and a flag for each model: `[rows, models · classes + models]`.
pub fn stacked(probabilities: &Tensor, present: &Tensor) -> Result<Tensor> {
    let there = present.to_dtype(DType::F32)?;
    let logs = probabilities.to_dtype(DType::F32)?.clamp_min(1e-4)?.log()?;
    Ok(Tensor::cat(&[&logs.mul(&there.unsqueeze(2)?)?.flatten(1, 2)?, &there], 1)?)
}

/// Which of `count` folds each row is in: rows of one group together, groups of each class dealt out evenly.
pub fn folds(groups: &[String], labels: &[i64], count: usize, seed: u64) -> Result<Vec<usize>> {
    if groups.len() != labels.len() || count < 2 {
        let found = format!("{} groups, {} labels, {count} folds", groups.len(), labels.len());
        return Err(Error::config("folds", found, "a group and a label a row, and at least two folds"));
    }
    let mut first: BTreeMap<&str, i64> = BTreeMap::new();
    for (group, label) in groups.iter().zip(labels) {
        first.entry(group).or_insert(*label);
    }
    let mut by_class: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for (group, label) in first {
        by_class.entry(label).or_default().push(group);
    }
    let mut random = Rng::new(&[seed, 0xF01D]);
    let (mut fold, mut next) = (BTreeMap::new(), 0);
    for members in by_class.values_mut() {
        random.shuffle(members);
        for group in members.iter() {
            fold.insert(*group, next % count);
            next += 1;
        }
    }
    Ok(groups.iter().map(|g| fold.get(g.as_str()).copied().unwrap_or(0)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_in_one_fold_and_classes_are_dealt_evenly() {
        let groups: Vec<String> = (0..120).map(|i| (i / 2).to_string()).collect();
        let labels: Vec<i64> = (0..120).map(|i| i64::from(i / 2 % 3 == 0)).collect();
        let fold = folds(&groups, &labels, 5, 7).unwrap();
        for pair in fold.chunks(2) {
            assert_eq!(pair[0], pair[1]);
        }
        for number in 0..5 {
            let ones = (0..120).filter(|i| fold[*i] == number && labels[*i] == 1).count();
            assert_eq!(ones, 8);
        }
        assert!(folds(&groups[1..], &labels, 5, 7).is_err());
    }
}
