//! Coupled regression onto labels with feature selection.

use crate::{
    Result,
    checks::{check_paired, invalid, to_f64},
    method::{Alignment, AlignmentMethod, FitOptions, PairedFeatures, Projection, Requirements},
};
use mm_core::{DType, Tensor, no_grad};

/// The result of [`joint_feature_selection`].
#[derive(Debug, Clone)]
pub struct SelectedFeatures {
    /// Mean `[1, dim]` and map `[dim, classes]` of each set; rows of a map near zero belong to features that are not
    /// used.
    pub sets: Vec<(Tensor, Tensor)>,
    /// The objective after each iteration; it never increases.
    pub objective: Vec<f64>,
}

/// One set during optimization.
struct Set {
    x: Tensor,
    mean: Tensor,
    mean_square: f64,
    gram: Tensor,
    xty: Tensor,
    eye: Tensor,
    map: Tensor,
}

impl Set {
    fn new(x: &Tensor, y: &Tensor, sparsity: f64) -> Result<Self> {
        let x = to_f64(x)?;
        let mean = x.mean_dim(&[0], true)?;
        let x = x.sub(&mean)?;
        let mean_square = x.pow(2.0)?.sum_dim(&[0], false)?.mean()?.to_f64()?.max(1e-12);
        let transposed = x.transpose(0, 1)?;
        let (gram, xty) = (transposed.matmul(&x)?, transposed.matmul(y)?);
        let eye = Tensor::eye(x.size(1)?, DType::F64, x.device())?;
        let map = gram.add(&eye.mul_scalar(sparsity.max(1e-6) * mean_square)?)?.solve(&xty)?;
        Ok(Self { x, mean, mean_square, gram, xty, eye, map })
    }

    /// Smoothed norms of the map's rows, `[dim]`: how much each feature is used.
    fn row_norms(&self) -> Result<Tensor> {
        Ok(self.map.pow(2.0)?.sum_dim(&[1], false)?.add_scalar(SMOOTHING)?.sqrt()?)
    }
}

/// Keeps derivatives of square roots finite; part of the objective.
const SMOOTHING: f64 = 1e-8;
const MAX_ITERATIONS: usize = 30;

/// Coupled linear regression of several sets `[rows, dim]` onto one class label per row, with two penalties: the ℓ2,1
/// norm of each map, which selects features (weight `sparsity`, relative to the set's mean squared column norm), and
/// the trace norm of the concatenated outputs of all sets, which makes the sets agree (weight `low_rank`, relative to
/// the square root of the number of rows). Solved by at most 30 iteratively reweighted ridge regressions.
///
/// From *Learning Coupled Feature Spaces for Cross-Modal Matching* (Wang et al., 2013,
/// <https://doi.org/10.1109/ICCV.2013.261>).
///
/// # Errors
/// When the sets are not paired or not finite, a label is missing or not below `num_classes`, or a weight is negative.
pub fn joint_feature_selection(
    sets: &[&Tensor],
    labels: &[i64],
    num_classes: i64,
    sparsity: f64,
    low_rank: f64,
) -> Result<SelectedFeatures> {
    let rows = check_paired("joint feature selection", sets)?;
    let in_range = labels.iter().all(|l| (0..num_classes).contains(l));
    if rows as usize != labels.len() || !in_range || !(sparsity >= 0.0 && low_rank >= 0.0) {
        let found = format!("{} labels for {rows} rows, weights {sparsity} and {low_rank}", labels.len());
        let expected = format!("one label below {num_classes} per row, and weights of at least 0");
        return Err(invalid("joint feature selection", found, expected));
    }
    no_grad(|| {
        let one_hot =
            Tensor::from_slice(labels)?.to_device(sets[0].device())?.one_hot(num_classes)?.to_dtype(DType::F64)?;
        let y = one_hot.sub(&one_hot.mean_dim(&[0], true)?)?;
        let mut sets = sets.iter().map(|x| Set::new(x, &y, sparsity)).collect::<Result<Vec<_>>>()?;
        let mut objective: Vec<f64> = Vec::new();
        let rank_weight = low_rank * (rows as f64).sqrt();
        let mut floor = 0.0;
        for _ in 0..MAX_ITERATIONS {
            let outputs = sets.iter().map(|s| s.x.matmul(&s.map)).collect::<mm_core::Result<Vec<_>>>()?;
            let (directions, singular, _) = Tensor::cat(&outputs.iter().collect::<Vec<_>>(), 1)?.svd()?;
            let squares = singular.pow(2.0)?;
            if objective.is_empty() {
                floor = (1e-4 * squares.max()?.to_f64()?).max(SMOOTHING);
            }
            let singular = squares.add_scalar(floor)?.sqrt()?;
            let mut sum = rank_weight * singular.sum()?.to_f64()?;
            for (set, output) in sets.iter().zip(&outputs) {
                sum += output.sub(&y)?.pow(2.0)?.sum()?.to_f64()?;
                sum += sparsity * set.mean_square * set.row_norms()?.sum()?.to_f64()?;
            }
            let converged = objective.last().is_some_and(|last| (last - sum).abs() <= 1e-6 * last.abs());
            objective.push(sum);
            if converged {
                break;
            }
            // Majorize-minimize: each norm is replaced by the quadratic that touches it here.
            let outside = floor.sqrt().recip(); // cost of directions outside the span of the outputs
            let inside = singular.pow(-1.0)?.add_scalar(-outside)?.unsqueeze(1)?;
            for set in &mut sets {
                let sparse = set.eye.mul(&set.row_norms()?.pow(-1.0)?)?.mul_scalar(0.5 * sparsity * set.mean_square)?;
                let projected = directions.transpose(0, 1)?.matmul(&set.x)?; // [sets · classes, dim]
                let trace =
                    projected.transpose(0, 1)?.matmul(&projected.mul(&inside)?)?.add(&set.gram.mul_scalar(outside)?)?;
                let penalty = sparse
                    .add(&trace.mul_scalar(0.5 * rank_weight)?)?
                    .add(&set.eye.mul_scalar(1e-9 * set.mean_square)?)?;
                set.map = set.gram.add(&penalty)?.solve(&set.xty)?;
            }
        }
        Ok(SelectedFeatures { sets: sets.into_iter().map(|s| (s.mean, s.map)).collect(), objective })
    })
}

/// The method `joint_feature_selection`: [`joint_feature_selection`] with the regularization as both weights.
pub struct JointFeatureSelection;

impl AlignmentMethod for JointFeatureSelection {
    fn name(&self) -> &'static str {
        "joint_feature_selection"
    }

    fn description(&self) -> &'static str {
        "both sets regressed onto the labels with joint feature selection (Wang et al. 2013); needs labels"
    }

    fn requirements(&self) -> Requirements {
        Requirements { labels: true, ..Requirements::default() }
    }

    fn regularization_grid(&self) -> &[f64] {
        &[1e-4, 1e-3, 1e-2, 3e-2, 0.1]
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let (classes, weight) = (pairs.num_classes(), options.regularization);
        let fit = joint_feature_selection(&[&pairs.a, &pairs.b], pairs.labels()?, classes, weight, weight)?;
        let mut projections = fit.sets.into_iter().map(|(mean, map)| Projection::affine(mean, map));
        match (projections.next(), projections.next()) {
            (Some(a), Some(b)) => Ok(Alignment::new(a, b, classes)),
            _ => Err(invalid("joint_feature_selection", "fewer than two sets", "two")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    #[test]
    fn informative_columns_are_selected_and_the_objective_decreases() {
        manual_seed(5);
        let labels: Vec<i64> = (0..150).map(|n| n * 7 % 3).collect();
        let one_hot = Tensor::from_slice(&labels).unwrap().one_hot(3).unwrap().to_dtype(DType::F64).unwrap();
        let noise = |dim: i64| Tensor::randn(&[150, dim], DType::F64, Device::Cpu).unwrap();
        // The first columns depend on the class, the rest are noise.
        let set = |informative: i64, rest: i64| {
            let mix = Tensor::randn(&[3, informative], DType::F64, Device::Cpu).unwrap();
            let signal = one_hot.matmul(&mix).unwrap().mul_scalar(2.0).unwrap().add(&noise(informative)).unwrap();
            Tensor::cat(&[&signal, &noise(rest)], 1).unwrap()
        };
        let (a, b) = (set(4, 30), set(3, 20));
        let found = joint_feature_selection(&[&a, &b], &labels, 3, 0.2, 0.05).unwrap();
        assert!(found.objective.len() > 2);
        assert!(found.objective.windows(2).all(|w| w[1] <= w[0] * (1.0 + 1e-9)), "{:?}", found.objective);
        for ((_, map), informative) in found.sets.iter().zip([4usize, 3]) {
            let used: Vec<f64> = map.pow(2.0).unwrap().sum_dim(&[1], false).unwrap().sqrt().unwrap().to_vec().unwrap();
            let largest = |some: &[f64]| some.iter().fold(0.0f64, |m, v| m.max(*v));
            assert!(largest(&used[informative..]) < 0.1 * largest(&used[..informative]), "{used:?}");
        }
        assert!(joint_feature_selection(&[&a, &b], &labels[1..], 3, 0.1, 0.1).is_err());
        assert!(joint_feature_selection(&[&a, &b], &[3; 150], 3, 0.1, 0.1).is_err());
        assert!(joint_feature_selection(&[&a, &b], &labels, 3, f64::NAN, 0.1).is_err());
    }
}
