//! Stacking by gradient-boosted trees (crate forust); absent predictions are missing values, which trees split on
//! natively.
//!
//! *Greedy Function Approximation: A Gradient Boosting Machine* (Friedman, 2001,
//! <https://doi.org/10.1214/aos/1013203451>).

use super::group_stratified_folds;
use crate::{Error, Result};
use forust_ml::{GradientBooster, Matrix, objective::ObjectiveType};
use mm_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// One-vs-rest trees per class (a single ensemble for two classes), or a regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BoostedTrees {
    /// JSON of each ensemble.
    trees: Vec<String>,
    classes: usize,
}

/// Largest number of boosting rounds; the number used is chosen by cross-validation.
const MAX_ROUNDS: usize = 160;

/// The targets of [`BoostedTrees`].
pub enum Targets<'a> {
    /// Class indices and the number of classes.
    Classes(&'a [i64], usize),
    /// Real values.
    Values(&'a [f64]),
}

fn problem(reason: impl std::fmt::Display) -> Error {
    Error::config("boosted stacking", reason.to_string(), "rows that trees can be fitted on")
}

/// Probabilities `[rows, models, classes]` as columns, NaN where absent, with the numbers of rows and columns.
fn columns(probabilities: &Tensor, present: &Tensor) -> Result<(Vec<f64>, usize, usize)> {
    let shape = probabilities.shape();
    let &[rows, models, classes] = shape.as_slice() else {
        return Err(Error::config("boosted stacking", format!("{shape:?}"), "[rows, models, classes]"));
    };
    if present.shape() != [rows, models] {
        return Err(Error::config(
            "boosted stacking",
            format!("presence {:?}", present.shape()),
            format!("[{rows}, {models}]"),
        ));
    }
    // Of two probabilities that sum to one, the second suffices.
    let kept = if classes == 2 { 1 } else { classes };
    let missing = present.gt_scalar(0.5)?.logical_not()?.unsqueeze(2)?;
    let values =
        probabilities.to_dtype(DType::F64)?.narrow(2, classes - kept, kept)?.masked_fill(&missing, f64::NAN)?;
    let flat = values.reshape(&[rows, models * kept])?.transpose(0, 1)?.contiguous()?;
    Ok((flat.to_vec()?, rows as usize, (models * kept) as usize))
}

fn select_rows(values: &[f64], rows: usize, chosen: &[usize]) -> Vec<f64> {
    values.chunks(rows).flat_map(|column| chosen.iter().map(|r| column[*r])).collect()
}

impl BoostedTrees {
    /// Fits trees on held-out predictions `[rows, models, classes]`; `present` is `[rows, models]`. The number of
    /// boosting rounds is chosen by cross-validation, in which rows of a group are in one fold.
    ///
    /// # Errors
    /// When shapes do not match or there are fewer than ten rows.
    pub fn fit(
        probabilities: &Tensor,
        present: &Tensor,
        targets: &Targets<'_>,
        groups: &[String],
        seed: u64,
    ) -> Result<Self> {
        let (values, rows, width) = columns(probabilities, present)?;
        let (columns_of_targets, classes, strata): (Vec<Vec<f64>>, usize, Vec<i64>) = match targets {
            Targets::Classes(labels, classes) => {
                let against = if *classes == 2 { 1..2 } else { 0..*classes };
                let one = |c: usize| labels.iter().map(|l| f64::from(u8::from(*l == c as i64))).collect();
                (against.map(one).collect(), *classes, labels.to_vec())
            }
            Targets::Values(numbers) => (vec![numbers.to_vec()], 0, vec![0; numbers.len()]),
        };
        if columns_of_targets.iter().any(|t| t.len() != rows) || rows < 10 || groups.len() != rows {
            return Err(problem(format!("{rows} rows and {} labels", columns_of_targets.first().map_or(0, Vec::len))));
        }
        let fold = group_stratified_folds(groups, &strata, 5, seed)?;
        let trees = columns_of_targets
            .iter()
            .map(|target| {
                // Validation loss after each number of rounds.
                let mut losses = vec![0.0; MAX_ROUNDS + 1];
                for left in 0..5 {
                    let (inside, outside): (Vec<usize>, Vec<usize>) = (0..rows).partition(|r| fold[*r] != left);
                    let own: Vec<f64> = inside.iter().map(|r| target[*r]).collect();
                    if outside.is_empty() || inside.len() < 5 {
                        continue;
                    }
                    let mut model =
                        fit_booster(&select_rows(&values, rows, &inside), &own, width, classes, MAX_ROUNDS)?;
                    let held = select_rows(&values, rows, &outside);
                    let matrix = Matrix::new(&held, outside.len(), width);
                    for (round, loss) in losses.iter_mut().enumerate().skip(1) {
                        model = model.set_prediction_iteration(Some(round - 1));
                        let guesses = model.predict(&matrix, false);
                        *loss +=
                            guesses.iter().zip(&outside).map(|(g, r)| loss_of(*g, target[*r], classes)).sum::<f64>();
                    }
                }
                let best = (1..=MAX_ROUNDS).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(1);
                fit_booster(&values, target, width, classes, best)?.json_dump().map_err(problem)
            })
            .collect::<Result<_>>()?;
        Ok(Self { trees, classes })
    }

    /// Class probabilities `[rows, classes]`, or values `[rows, 1]`, float64, for predictions of the same models and
    /// classes as in [`BoostedTrees::fit`].
    ///
    /// # Errors
    /// When the shapes do not match.
    pub fn apply(&self, probabilities: &Tensor, present: &Tensor) -> Result<Tensor> {
        let (values, rows, width) = columns(probabilities, present)?;
        let matrix = Matrix::new(&values, rows, width);
        let mut out = Vec::new();
        for trees in &self.trees {
            let found = GradientBooster::from_json(trees).map_err(problem)?.predict(&matrix, false);
            out.push(Tensor::from_slice(&found)?);
        }
        let all = Tensor::stack(&out.iter().collect::<Vec<_>>(), 1)?; // [rows, ensembles]
        match self.classes {
            0 => Ok(all),
            2 => Ok(Tensor::cat(&[&all.neg()?.sigmoid()?, &all.sigmoid()?], 1)?),
            _ => {
                let each = all.sigmoid()?;
                Ok(each.div(&each.sum_dim(&[1], true)?.clamp_min(1e-12)?)?)
            }
        }
    }
}

fn loss_of(prediction: f64, target: f64, classes: usize) -> f64 {
    if classes == 0 {
        return (prediction - target).powi(2);
    }
    // Numerically stable binary cross-entropy with logits.
    prediction.max(0.0) - prediction * target + (-prediction.abs()).exp().ln_1p()
}

fn fit_booster(values: &[f64], target: &[f64], width: usize, classes: usize, rounds: usize) -> Result<GradientBooster> {
    let objective = if classes == 0 { ObjectiveType::SquaredLoss } else { ObjectiveType::LogLoss };
    let mut model = GradientBooster::default()
        .set_objective_type(objective)
        .set_iterations(rounds)
        .set_learning_rate(0.05)
        .set_max_depth(3)
        .set_l2(5.0)
        .set_initialize_base_score(true)
        .set_parallel(false);
    model.fit_unweighted(&Matrix::new(values, target.len(), width), target, None).map_err(problem)?;
    Ok(model)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::seed::Rng;

    /// The class is the exclusive or of two models' predictions, which no weighted mean can represent.
    fn exclusive_or(rows: usize, seed: u64) -> (Tensor, Tensor, Vec<i64>) {
        let mut rng = Rng::new(&[seed]);
        let (mut predictions, mut present, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows {
            let (a, b) = (rng.uniform(), rng.uniform());
            labels.push(i64::from((a > 0.5) != (b > 0.5)));
            predictions.extend([1.0 - a, a, 1.0 - b, b]);
            present.extend([1f32, f32::from(u8::from(row % 10 != 0))]);
        }
        let rows = rows as i64;
        (
            Tensor::from_vec(&predictions, &[rows, 2, 2]).unwrap(),
            Tensor::from_vec(&present, &[rows, 2]).unwrap(),
            labels,
        )
    }

    #[test]
    fn trees_learn_interactions_and_handle_absent_predictions() {
        let (predictions, present, labels) = exclusive_or(400, 1);
        let groups: Vec<String> = (0..400).map(|i| i.to_string()).collect();
        let model = BoostedTrees::fit(&predictions, &present, &Targets::Classes(&labels, 2), &groups, 0).unwrap();
        let (predictions, present, labels) = exclusive_or(300, 2);
        let p = model.apply(&predictions, &present).unwrap().to_vec::<f64>().unwrap();
        let right = (0..300).filter(|r| (p[2 * r + 1] > 0.5) == (labels[*r] == 1)).count();
        assert!(right > 255, "{right} of 300");
        assert!(p.chunks(2).all(|row| (row[0] + row[1] - 1.0).abs() < 1e-9));
        let text = serde_json::to_string(&model).unwrap();
        let restored: BoostedTrees = serde_json::from_str(&text).unwrap();
        assert_eq!(restored.apply(&predictions, &present).unwrap().to_vec::<f64>().unwrap(), p);
        let three: Vec<i64> = (0..300).map(|r| i64::from(p[2 * r] > 0.3) + i64::from(p[2 * r] > 0.7)).collect();
        let groups = &groups[..300];
        let of_three = BoostedTrees::fit(&predictions, &present, &Targets::Classes(&three, 3), groups, 0).unwrap();
        assert_eq!(of_three.apply(&predictions, &present).unwrap().shape(), [300, 3]);
        let numbers: Vec<f64> = three.iter().map(|c| *c as f64 * 10.0).collect();
        let of_numbers = BoostedTrees::fit(&predictions, &present, &Targets::Values(&numbers), groups, 0).unwrap();
        let found = of_numbers.apply(&predictions, &present).unwrap().to_vec::<f64>().unwrap();
        let error = found.iter().zip(&numbers).map(|(a, b)| (a - b).abs()).sum::<f64>() / 300.0;
        assert!(error < 4.0, "{error}");
        assert!(BoostedTrees::fit(&predictions, &present, &Targets::Values(&numbers[..5]), groups, 0).is_err());
    }
}
