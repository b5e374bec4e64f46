//! A model over what the heads say (stacking, Wolpert 1992), learned on rows that the heads were not trained on.

use crate::{Error, Result};
use mm_align::supervised::LogisticRegression;
use mm_core::Tensor;
use mm_fusion::late::{BoostedTrees, Targets, group_stratified_folds, stacking_features};
use serde::{Deserialize, Serialize};

/// One of the two, as it is kept in a run folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stack {
    LogisticRegression { mean: Vec<f64>, deviation: Vec<f64>, weights: Vec<f64> },
    GradientBoosting(BoostedTrees),
}

/// Weights on the squared weights that are tried.
const PENALTIES: [f64; 6] = [1e-2, 1e-1, 0.3, 1.0, 3.0, 10.0];

impl Stack {
    /// A logistic regression on `said` `[rows, heads, classes]` and which of it there is, `[rows, heads]`; how much it is held back is chosen
    /// on folds that keep groups together.
    pub(super) fn logistic(said: &Tensor, there: &Tensor, labels: &[i64], groups: &[String]) -> Result<Self> {
        let (inputs, classes) = (stacking_features(said, there)?, said.size(2)?);
        let fold = group_stratified_folds(groups, labels, 5, 0)?;
        let mut losses = [0.0; PENALTIES.len()];
        for left in 0..5 {
            let (inside, outside): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|r| fold[*r] != left);
            if inside.is_empty() || outside.is_empty() {
                continue;
            }
            let part = |rows: &[usize]| -> Result<(Tensor, Vec<i64>)> {
                let places: Vec<i64> = rows.iter().map(|r| *r as i64).collect();
                Ok((inputs.index_select(0, &Tensor::from_slice(&places)?)?, rows.iter().map(|r| labels[*r]).collect()))
            };
            let ((x, own), (held, truth)) = (part(&inside)?, part(&outside)?);
            let truth = Tensor::from_slice(&truth)?.unsqueeze(1)?;
            for (loss, penalty) in losses.iter_mut().zip(PENALTIES) {
                let p = LogisticRegression::fit(&x, &own, classes, penalty)?.predict_proba(&held)?;
                *loss -= p.gather(1, &truth)?.clamp_min(1e-9)?.log()?.sum()?.to_f64()?;
            }
        }
        let best = (0..PENALTIES.len()).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(0);
        let [mean, deviation, weights] =
            LogisticRegression::fit(&inputs, labels, classes, PENALTIES[best])?.parameters()?;
        Ok(Self::LogisticRegression { mean, deviation, weights })
    }

    /// Gradient-boosted trees on the same.
    pub(super) fn boosted(said: &Tensor, there: &Tensor, truth: &Targets<'_>, groups: &[String]) -> Result<Self> {
        Ok(Self::GradientBoosting(BoostedTrees::fit(said, there, truth, groups, 0)?))
    }

    /// `[rows, classes]` probabilities, or `[rows, 1]` numbers, float64.
    pub(super) fn apply(&self, said: &Tensor, there: &Tensor) -> Result<Tensor> {
        match self {
            Self::GradientBoosting(trees) => Ok(trees.apply(said, there)?),
            Self::LogisticRegression { mean, deviation, weights } => {
                let inputs = stacking_features(said, there)?;
                let width = inputs.size(1)? as usize;
                if mean.len() != width || weights.len() != (width + 1) * said.size(2)? as usize {
                    return Err(Error::Config(format!(
                        "head_ensemble.json: found a regression on {} numbers, wanted {width}: it is another run's",
                        mean.len()
                    )));
                }
                Ok(LogisticRegression::from_parameters(mean, deviation, weights)?.predict_proba(&inputs)?)
            }
        }
    }
}
