//! Stacking: a model over the predictions of the heads, fitted on rows that the heads were not trained on.

use crate::{Error, Result};
use mm_align::supervised::LogisticRegression;
use mm_core::Tensor;
use mm_fusion::late::{group_stratified_folds, stacking_features};
use serde::{Deserialize, Serialize};

#[cfg(not(feature = "boosting"))]
pub(super) use super::boosted_trees::{BoostedTrees, Targets};
#[cfg(feature = "boosting")]
pub(super) use mm_fusion::late::{BoostedTrees, Targets};

/// Predictions of the heads on some rows.
#[derive(Clone, Copy)]
pub(super) struct HeadPredictions<'a> {
    /// Float64 `[rows, heads, classes]`.
    pub(super) values: &'a Tensor,
    /// `[rows, heads]`: 1 where a row has the head's modality.
    pub(super) present: &'a Tensor,
}

/// A stacked model, as it is saved in a run folder.
///
/// From *Stacked generalization* (Wolpert, 1992, <https://doi.org/10.1016/S0893-6080(05)80023-1>).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stacking {
    LogisticRegression { mean: Vec<f64>, std: Vec<f64>, weights: Vec<f64> },
    GradientBoosting(BoostedTrees),
}

/// Weights of the squared norm that are tried.
const L2_PENALTIES: [f64; 6] = [1e-2, 1e-1, 0.3, 1.0, 3.0, 10.0];

/// Folds of the cross-validation.
const NUM_FOLDS: usize = 5;

impl Stacking {
    /// A logistic regression; its penalty is chosen by cross-validation on folds that keep groups together.
    pub(super) fn fit_logistic_regression(
        predictions: HeadPredictions<'_>,
        labels: &[i64],
        groups: &[String],
    ) -> Result<Self> {
        let (inputs, classes) = (predictions.features()?, predictions.values.size(2)?);
        let fold = group_stratified_folds(groups, labels, NUM_FOLDS, 0)?;
        let mut losses = [0.0; L2_PENALTIES.len()];
        for held_out in 0..NUM_FOLDS {
            let (train, test): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|r| fold[*r] != held_out);
            if train.is_empty() || test.is_empty() {
                continue;
            }
            let select = |rows: &[usize]| -> Result<(Tensor, Vec<i64>)> {
                let indices: Vec<i64> = rows.iter().map(|r| *r as i64).collect();
                let selected = inputs.index_select(0, &Tensor::from_slice(&indices)?)?;
                Ok((selected, rows.iter().map(|r| labels[*r]).collect()))
            };
            let ((x, y), (test_x, test_y)) = (select(&train)?, select(&test)?);
            let test_y = Tensor::from_slice(&test_y)?.unsqueeze(1)?;
            for (loss, penalty) in losses.iter_mut().zip(L2_PENALTIES) {
                let p = LogisticRegression::fit(&x, &y, classes, penalty)?.predict_proba(&test_x)?;
                *loss -= p.gather(1, &test_y)?.clamp_min(1e-9)?.log()?.sum()?.to_f64()?;
            }
        }
        let best = (0..losses.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(0);
        let [mean, std, weights] =
            LogisticRegression::fit(&inputs, labels, classes, L2_PENALTIES[best])?.parameters()?;
        Ok(Self::LogisticRegression { mean, std, weights })
    }

    /// Gradient-boosted trees.
    pub(super) fn fit_gradient_boosting(
        predictions: HeadPredictions<'_>,
        targets: &Targets<'_>,
        groups: &[String],
    ) -> Result<Self> {
        let trees = BoostedTrees::fit(predictions.values, predictions.present, targets, groups, 0)?;
        Ok(Self::GradientBoosting(trees))
    }

    /// Probabilities `[rows, classes]`, or values `[rows, 1]`, float64.
    pub(super) fn predict(&self, predictions: HeadPredictions<'_>) -> Result<Tensor> {
        match self {
            Self::GradientBoosting(trees) => Ok(trees.apply(predictions.values, predictions.present)?),
            Self::LogisticRegression { mean, std, weights } => {
                let inputs = predictions.features()?;
                let dim = inputs.size(1)? as usize;
                let classes = predictions.values.size(2)? as usize;
                if mean.len() != dim || weights.len() != (dim + 1) * classes {
                    let found = format!("{} features and {} weights", mean.len(), weights.len());
                    let expected = format!("{dim} features of {classes} classes");
                    return Err(Error::invalid("stacked logistic regression", found, expected)
                        .with_hint("head_ensemble.json is of another run"));
                }
                Ok(LogisticRegression::from_parameters(mean, std, weights)?.predict_proba(&inputs)?)
            }
        }
    }
}

impl HeadPredictions<'_> {
    fn features(&self) -> Result<Tensor> {
        Ok(stacking_features(self.values, self.present)?)
    }
}
