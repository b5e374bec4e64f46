//! Gradient-boosted trees over what models say (Friedman 2001; Wolpert 1992), by the crate forust. A model that says nothing of a row is
//! a missing value to them, which they know how to split on.

use super::folds;
use crate::{Error, Result};
use forust_ml::{GradientBooster, Matrix, objective::ObjectiveType};
use mm_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Trees for each class against the others (for two classes one lot of trees), or for a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boosted {
    /// As forust writes them.
    trees: Vec<String>,
    classes: usize,
}

/// Rounds that are tried; how many are kept is chosen on rows left out.
const ROUNDS: usize = 160;

/// What is learned from.
pub enum Truth<'a> {
    /// Class numbers below `classes`.
    Classes(&'a [i64], usize),
    /// Numbers.
    Numbers(&'a [f64]),
}

fn problem(reason: impl std::fmt::Display) -> Error {
    Error::config("boosted stacking", reason.to_string(), "rows that trees can be grown on")
}

/// Probabilities `[rows, models, classes]` as a matrix, one column after the other; NaN where a model says nothing.
fn columns(said: &Tensor, present: &Tensor) -> Result<(Vec<f64>, usize, usize)> {
    let shape = said.shape();
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
    // Two probabilities that sum to one say one thing.
    let kept = if classes == 2 { 1 } else { classes };
    let missing = present.gt_scalar(0.5)?.logical_not()?.unsqueeze(2)?;
    let values = said.to_dtype(DType::F64)?.narrow(2, classes - kept, kept)?.masked_fill(&missing, f64::NAN)?;
    let flat = values.reshape(&[rows, models * kept])?.transpose(0, 1)?.contiguous()?;
    Ok((flat.to_vec()?, rows as usize, (models * kept) as usize))
}

fn some(values: &[f64], rows: usize, chosen: &[usize]) -> Vec<f64> {
    values.chunks(rows).flat_map(|column| chosen.iter().map(|r| column[*r])).collect()
}

impl Boosted {
    /// Grows trees on what models say of rows that they were not trained on; `groups` are kept on one side when the number of rounds is
    /// chosen.
    pub fn fit(said: &Tensor, present: &Tensor, truth: &Truth<'_>, groups: &[String], seed: u64) -> Result<Self> {
        let (values, rows, width) = columns(said, present)?;
        let (targets, classes, strata): (Vec<Vec<f64>>, usize, Vec<i64>) = match truth {
            Truth::Classes(labels, classes) => {
                let against = if *classes == 2 { 1..2 } else { 0..*classes };
                let one = |c: usize| labels.iter().map(|l| f64::from(u8::from(*l == c as i64))).collect();
                (against.map(one).collect(), *classes, labels.to_vec())
            }
            Truth::Numbers(numbers) => (vec![numbers.to_vec()], 0, vec![0; numbers.len()]),
        };
        if targets.iter().any(|t| t.len() != rows) || rows < 10 || groups.len() != rows {
            return Err(problem(format!("{rows} rows and {} labels", targets.first().map_or(0, Vec::len))));
        }
        let fold = folds(groups, &strata, 5, seed)?;
        let trees = targets
            .iter()
            .map(|target| {
                // Of the losses on rows left out, after each number of rounds.
                let mut losses = vec![0.0; ROUNDS + 1];
                for left in 0..5 {
                    let (inside, outside): (Vec<usize>, Vec<usize>) = (0..rows).partition(|r| fold[*r] != left);
                    let own: Vec<f64> = inside.iter().map(|r| target[*r]).collect();
                    if outside.is_empty() || inside.len() < 5 {
                        continue;
                    }
                    let mut model = grown(&some(&values, rows, &inside), &own, width, classes, ROUNDS)?;
                    let held = some(&values, rows, &outside);
                    let matrix = Matrix::new(&held, outside.len(), width);
                    for (round, loss) in losses.iter_mut().enumerate().skip(1) {
                        model = model.set_prediction_iteration(Some(round - 1));
                        let guesses = model.predict(&matrix, false);
                        *loss += guesses.iter().zip(&outside).map(|(g, r)| off(*g, target[*r], classes)).sum::<f64>();
                    }
                }
                let best = (1..=ROUNDS).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(1);
                grown(&values, target, width, classes, best)?.json_dump().map_err(problem)
            })
            .collect::<Result<_>>()?;
        Ok(Self { trees, classes })
    }

    /// `[rows, classes]` probabilities, or `[rows, 1]` numbers, float64.
    pub fn apply(&self, said: &Tensor, present: &Tensor) -> Result<Tensor> {
        let (values, rows, width) = columns(said, present)?;
        let matrix = Matrix::new(&values, rows, width);
        let mut out = Vec::new();
        for trees in &self.trees {
            let found = GradientBooster::from_json(trees).map_err(problem)?.predict(&matrix, false);
            out.push(Tensor::from_slice(&found)?);
        }
        let all = Tensor::stack(&out.iter().collect::<Vec<_>>(), 1)?; // [rows, lots]
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

fn off(guess: f64, truth: f64, classes: usize) -> f64 {
    if classes == 0 {
        return (guess - truth).powi(2);
    }
    // The cross-entropy of a logit, without overflow.
    guess.max(0.0) - guess * truth + (-guess.abs()).exp().ln_1p()
}

fn grown(values: &[f64], target: &[f64], width: usize, classes: usize, rounds: usize) -> Result<GradientBooster> {
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

    /// Two models of two classes of which one is right when the other is unsure, and only together tell: an exclusive or of what they say.
    fn exclusive(rows: usize, seed: u64) -> (Tensor, Tensor, Vec<i64>) {
        let mut random = Rng::new(&[seed]);
        let (mut said, mut present, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for row in 0..rows {
            let (a, b) = (random.uniform(), random.uniform());
            labels.push(i64::from((a > 0.5) != (b > 0.5)));
            said.extend([1.0 - a, a, 1.0 - b, b]);
            present.extend([1f32, f32::from(u8::from(row % 10 != 0))]);
        }
        let rows = rows as i64;
        (Tensor::from_vec(&said, &[rows, 2, 2]).unwrap(), Tensor::from_vec(&present, &[rows, 2]).unwrap(), labels)
    }

    #[test]
    fn trees_find_what_no_weighted_mean_can_and_take_what_is_missing() {
        let (said, present, labels) = exclusive(400, 1);
        let groups: Vec<String> = (0..400).map(|i| i.to_string()).collect();
        let model = Boosted::fit(&said, &present, &Truth::Classes(&labels, 2), &groups, 0).unwrap();
        let (said, present, labels) = exclusive(300, 2);
        let p = model.apply(&said, &present).unwrap().to_vec::<f64>().unwrap();
        let right = (0..300).filter(|r| (p[2 * r + 1] > 0.5) == (labels[*r] == 1)).count();
        assert!(right > 255, "{right} of 300");
        assert!(p.chunks(2).all(|row| (row[0] + row[1] - 1.0).abs() < 1e-9));
        let text = serde_json::to_string(&model).unwrap();
        let again: Boosted = serde_json::from_str(&text).unwrap();
        assert_eq!(again.apply(&said, &present).unwrap().to_vec::<f64>().unwrap(), p);
        let three: Vec<i64> = (0..300).map(|r| i64::from(p[2 * r] > 0.3) + i64::from(p[2 * r] > 0.7)).collect();
        let groups = &groups[..300];
        let of_three = Boosted::fit(&said, &present, &Truth::Classes(&three, 3), groups, 0).unwrap();
        assert_eq!(of_three.apply(&said, &present).unwrap().shape(), [300, 3]);
        let numbers: Vec<f64> = three.iter().map(|c| *c as f64 * 10.0).collect();
        let of_numbers = Boosted::fit(&said, &present, &Truth::Numbers(&numbers), groups, 0).unwrap();
        let found = of_numbers.apply(&said, &present).unwrap().to_vec::<f64>().unwrap();
        let error = found.iter().zip(&numbers).map(|(a, b)| (a - b).abs()).sum::<f64>() / 300.0;
        assert!(error < 4.0, "{error}");
        assert!(Boosted::fit(&said, &present, &Truth::Numbers(&numbers[..5]), groups, 0).is_err());
    }
}
