//! Inputs and folds for stacking: a second-level model is trained on the other models' predictions for rows that these
//! were not trained on.
//!
//! *Stacked Generalization* (Wolpert, 1992, <https://doi.org/10.1016/S0893-6080(05)80023-1>).

use crate::{Error, Result};
use mm_core::{DType, Tensor, seed::Rng};
use std::collections::BTreeMap;

/// Inputs of a second-level model, `[rows, models · classes + models]`: log-probabilities (zero where absent) and a
/// presence flag per model.
///
/// # Errors
/// When the shapes do not match.
pub fn stacking_features(probabilities: &Tensor, present: &Tensor) -> Result<Tensor> {
    let available = present.to_dtype(DType::F32)?;
    let logs = probabilities.to_dtype(DType::F32)?.clamp_min(1e-4)?.log()?;
    Ok(Tensor::cat(&[&logs.mul(&available.unsqueeze(2)?)?.flatten(1, 2)?, &available], 1)?)
}

/// Fold index of each row, stratified: rows of a group are in one fold, and the groups of each class (that of the
/// group's first row) are spread evenly over the folds.
///
/// # Errors
/// When the numbers of groups and labels differ, or there are fewer than two folds.
pub fn group_stratified_folds(groups: &[String], labels: &[i64], count: usize, seed: u64) -> Result<Vec<usize>> {
    if groups.len() != labels.len() || count < 2 {
        let found = format!("{} groups, {} labels, {count} folds", groups.len(), labels.len());
        return Err(Error::config("folds", found, "one group and one label per row, and at least two folds"));
    }
    let mut first: BTreeMap<&str, i64> = BTreeMap::new();
    for (group, label) in groups.iter().zip(labels) {
        first.entry(group).or_insert(*label);
    }
    let mut by_class: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for (group, label) in first {
        by_class.entry(label).or_default().push(group);
    }
    let mut rng = Rng::new(&[seed, 0xF01D]);
    let (mut fold, mut next) = (BTreeMap::new(), 0);
    for members in by_class.values_mut() {
        rng.shuffle(members);
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
    fn groups_stay_together_and_classes_are_balanced() {
        let groups: Vec<String> = (0..120).map(|i| (i / 2).to_string()).collect();
        let labels: Vec<i64> = (0..120).map(|i| i64::from(i / 2 % 3 == 0)).collect();
        let fold = group_stratified_folds(&groups, &labels, 5, 7).unwrap();
        for pair in fold.chunks(2) {
            assert_eq!(pair[0], pair[1]);
        }
        for number in 0..5 {
            let ones = (0..120).filter(|i| fold[*i] == number && labels[*i] == 1).count();
            assert_eq!(ones, 8);
        }
        assert!(group_stratified_folds(&groups[1..], &labels, 5, 7).is_err());
    }
}
