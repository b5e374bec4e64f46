//! Calibration: probabilities that say how often they are right. Temperature scaling (Guo 2017) and isotonic regression (Zadrozny 2002).

use crate::{Error, Result};
use mm_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Logits are divided by one number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Temperature(pub f64);

impl Temperature {
    /// The temperature between 1/20 and 20 under which these rows' classes are likeliest; rows that were not trained on.
    pub fn fit(logits: &Tensor, labels: &[i64]) -> Result<Self> {
        let shape = logits.shape();
        if shape.len() != 2 || shape[0] as usize != labels.len() || labels.is_empty() {
            let found = format!("{shape:?} and {} labels", labels.len());
            return Err(Error::config("temperature", found, "[rows, classes] and a label a row, at least one"));
        }
        let logits = logits.to_dtype(DType::F64)?;
        let truth = Tensor::from_slice(labels)?.to_device(logits.device())?.unsqueeze(1)?;
        let loss = |log_t: f64| -> Result<f64> {
            let p = logits.mul_scalar((-log_t).exp())?.log_softmax(1)?;
            Ok(-p.gather(1, &truth)?.mean()?.to_f64()?)
        };
        // The loss has one valley in the logarithm of the temperature: a golden section finds it.
        let (mut low, mut high) = (-(20f64.ln()), 20f64.ln());
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        for _ in 0..40 {
            let (a, b) = (high - golden * (high - low), low + golden * (high - low));
            if loss(a)? < loss(b)? { high = b } else { low = a }
        }
        Ok(Self(f64::midpoint(low, high).exp()))
    }

    /// `[rows, classes]` logits → calibrated ones.
    pub fn apply(&self, logits: &Tensor) -> Result<Tensor> {
        Ok(logits.mul_scalar(1.0 / self.0)?)
    }
}

/// A non-decreasing step function from scores to frequencies (pool adjacent violators, Ayer 1955), straight between its steps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Isotonic {
    scores: Vec<f64>,
    values: Vec<f64>,
}

impl Isotonic {
    /// Fits scores to outcomes, 1 or 0 (or any numbers).
    pub fn fit(scores: &[f64], outcomes: &[f64]) -> Result<Self> {
        if scores.len() != outcomes.len() || scores.is_empty() || scores.iter().chain(outcomes).any(|v| !v.is_finite())
        {
            let found = format!("{} scores and {} outcomes", scores.len(), outcomes.len());
            return Err(Error::config("isotonic", found, "as many finite scores as outcomes, at least one"));
        }
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| scores[*a].total_cmp(&scores[*b]));
        // Blocks of (sum, count, first score, last score) whose means grow.
        let mut blocks: Vec<(f64, f64, f64, f64)> = Vec::new();
        for place in order {
            let (score, outcome) = (scores[place], outcomes[place]);
            match blocks.last_mut() {
                Some(last) if last.3 == score => (last.0, last.1) = (last.0 + outcome, last.1 + 1.0),
                _ => blocks.push((outcome, 1.0, score, score)),
            }
            while let [.., before, last] = blocks.as_mut_slice() {
                if before.0 / before.1 < last.0 / last.1 {
                    break;
                }
                (before.0, before.1, before.3) = (before.0 + last.0, before.1 + last.1, last.3);
                blocks.pop();
            }
        }
        let (mut at, mut values) = (Vec::new(), Vec::new());
        for (sum, count, first, last) in blocks {
            for score in if first == last { vec![first] } else { vec![first, last] } {
                at.push(score);
                values.push(sum / count);
            }
        }
        Ok(Self { scores: at, values })
    }

    /// The frequency of a score; beyond the ends that of the end.
    pub fn apply(&self, score: f64) -> f64 {
        let place = self.scores.partition_point(|s| *s < score);
        if place == 0 {
            return self.values[0];
        }
        let Some(right) = self.scores.get(place) else { return self.values[place - 1] };
        let left = self.scores[place - 1];
        let share = if right > &left { (score - left) / (right - left) } else { 1.0 };
        self.values[place - 1] + share * (self.values[place] - self.values[place - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_is_found_again_and_isotonic_steps_are_those_of_scikit_learn() {
        // Classes drawn as often as the softmax of logits / 2 says: the temperature is 2.
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for step in -20i32..=20 {
            let logit = f64::from(step) / 5.0;
            let ones = (1000.0 / (1.0 + (-logit / 2.0).exp())).round() as usize;
            for draw in 0..1000 {
                logits.extend([0.0, logit]);
                labels.push(i64::from(draw < ones));
            }
        }
        let logits = Tensor::from_vec(&logits, &[labels.len() as i64, 2]).unwrap();
        assert!((Temperature::fit(&logits, &labels).unwrap().0 - 2.0).abs() < 0.02);
        // sklearn.isotonic.IsotonicRegression().fit([1,2,3,4,5,6],[1,0,1,0,1,1]).predict → [.5,.5,.5,.5,1,1]
        let steps = Isotonic::fit(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[1.0, 0.0, 1.0, 0.0, 1.0, 1.0]).unwrap();
        let found: Vec<f64> = [0.0, 1.0, 2.5, 4.0, 4.5, 5.0, 9.0].iter().map(|s| steps.apply(*s)).collect();
        assert_eq!(found, [0.5, 0.5, 0.5, 0.5, 0.75, 1.0, 1.0]);
        assert!(Isotonic::fit(&[f64::NAN], &[1.0]).is_err());
    }
}
