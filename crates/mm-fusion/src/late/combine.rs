//! Combination rules for probabilities, and weights fitted on held-out rows.
//!
//! *On Combining Classifiers* (Kittler et al., 1998, <https://doi.org/10.1109/34.667881>).

use crate::{Error, Result};
use mm_core::{AdamStep, DType, Tensor, enable_grad, no_grad};
use serde::{Deserialize, Serialize};

/// Rule by which the models' probabilities are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CombinationRule {
    /// Weighted mean (linear opinion pool).
    Mean,
    /// Normalized product: assumes independence given the class and a uniform prior.
    Product,
    /// Weighted geometric mean (logarithmic opinion pool).
    LogPool,
    /// Weighted fraction of models for which the class is the most probable one.
    Vote,
    /// Normalized maximum.
    Max,
}

fn check(probabilities: &Tensor, present: &Tensor, weights: Option<&[f64]>) -> Result<[i64; 3]> {
    let shape = probabilities.shape();
    let [rows, models, classes] = shape[..] else {
        return Err(Error::config("late fusion", format!("{shape:?}"), "[rows, models, classes]"));
    };
    if present.shape() != [rows, models] || weights.is_some_and(|w| w.len() as i64 != models) {
        let found = format!("presence {:?} and {:?} weights", present.shape(), weights.map(<[f64]>::len));
        return Err(Error::config("late fusion", found, format!("[{rows}, {models}], and {models} weights")));
    }
    Ok([rows, models, classes])
}

/// Combines probabilities `[rows, models, classes]` into `[rows, classes]`, float64; a row without any prediction gets
/// uniform probabilities. `present` `[rows, models]` is 1 where a model has a prediction; `weights` has one value per
/// model, all equal if absent.
///
/// ```
/// use mm_core::{DType, Device, Tensor};
/// use mm_fusion::late::{CombinationRule, combine};
/// # fn main() -> mm_fusion::Result<()> {
/// let p = Tensor::from_vec(&[0.8, 0.2, 0.4, 0.6], &[1, 2, 2])?;
/// let present = Tensor::ones(&[1, 2], DType::F32, Device::Cpu)?;
/// let mean = combine(&p, &present, CombinationRule::Mean, None)?.to_vec::<f64>()?;
/// assert!((mean[0] - 0.6).abs() < 1e-9);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the shapes do not match.
pub fn combine(
    probabilities: &Tensor,
    present: &Tensor,
    rule: CombinationRule,
    weights: Option<&[f64]>,
) -> Result<Tensor> {
    let [_, models, classes] = check(probabilities, present, weights)?;
    let p = probabilities.to_dtype(DType::F64)?;
    let weights = match weights {
        Some(weights) => Tensor::from_slice(weights)?.to_device(p.device())?,
        None => Tensor::ones(&[models], DType::F64, p.device())?,
    };
    let available = present.to_dtype(DType::F64)?; // [rows, models]
    let shares = available.mul(&weights)?;
    let shares = shares.div(&shares.sum_dim(&[1], true)?.clamp_min(1e-12)?)?.unsqueeze(2)?; // [rows, models, 1]
    let logs = p.clamp_min(1e-12)?.log()?;
    let any = available.amax(1, true)?; // [rows, 1]
    let combined = match rule {
        CombinationRule::Mean => p.mul(&shares)?.sum_dim(&[1], false)?,
        CombinationRule::Product => logs.mul(&available.unsqueeze(2)?)?.sum_dim(&[1], false)?.softmax(1)?,
        CombinationRule::LogPool => logs.mul(&shares)?.sum_dim(&[1], false)?.softmax(1)?,
        CombinationRule::Vote => {
            p.argmax(2)?.one_hot(classes)?.to_dtype(DType::F64)?.mul(&shares)?.sum_dim(&[1], false)?
        }
        CombinationRule::Max => p.mul(&available.unsqueeze(2)?)?.amax(1, false)?,
    };
    let total = combined.sum_dim(&[1], true)?;
    let uniform = any.neg()?.add_scalar(1.0)?.mul_scalar(1.0 / classes as f64)?;
    Ok(combined.div(&total.clamp_min(1e-12)?)?.mul(&any)?.add(&uniform)?)
}

/// Model weights, summing to one, that maximize the likelihood of the labels on held-out rows, for
/// [`CombinationRule::Mean`] and [`CombinationRule::LogPool`]. A weak L2 penalty toward equal weights stabilizes the
/// fit on few rows.
///
/// # Errors
/// When shapes do not match, a label is out of range, or the rule has no weights.
pub fn fit_weights(
    probabilities: &Tensor,
    present: &Tensor,
    labels: &[i64],
    rule: CombinationRule,
) -> Result<Vec<f64>> {
    let [rows, models, classes] = check(probabilities, present, None)?;
    if labels.len() as i64 != rows || labels.iter().any(|l| !(0..classes).contains(l)) {
        let found = format!("{} labels up to {:?}", labels.len(), labels.iter().max());
        return Err(Error::config("late fusion weights", found, format!("{rows} labels below {classes}")));
    }
    if !matches!(rule, CombinationRule::Mean | CombinationRule::LogPool) {
        return Err(Error::config(
            "late fusion weights",
            format!("{rule:?}"),
            "a rule that has weights: mean, log_pool",
        ));
    }
    let p = probabilities.to_dtype(DType::F64)?.clamp_min(1e-9)?;
    let available = present.to_dtype(DType::F64)?;
    let target = Tensor::from_slice(labels)?.to_device(p.device())?.unsqueeze(1)?;
    let logits = Tensor::zeros(&[models], DType::F64, p.device())?.set_requires_grad(true)?;
    let (exp_avg, exp_avg_sq) = (logits.detach()?.zeros_like()?, logits.detach()?.zeros_like()?);
    for step in 1..=200 {
        logits.zero_grad();
        enable_grad(|| -> Result<()> {
            let shares = logits.softmax(0)?.mul(&available)?;
            let shares = shares.div(&shares.sum_dim(&[1], true)?.clamp_min(1e-12)?)?.unsqueeze(2)?;
            let log_p = match rule {
                CombinationRule::LogPool => p.log()?.mul(&shares)?.sum_dim(&[1], false)?.log_softmax(1)?,
                _ => p.mul(&shares)?.sum_dim(&[1], false)?.clamp_min(1e-12)?.log()?,
            };
            let loss = log_p.gather(1, &target)?.mean()?.neg()?;
            let penalty = logits.pow(2.0)?.sum()?.mul_scalar(0.5 / rows as f64)?;
            Ok(loss.add(&penalty)?.backward()?)
        })?;
        let Some(gradient) = logits.grad() else { break };
        no_grad(|| -> Result<()> {
            let step = AdamStep { beta2: 0.99, ..AdamStep::new(0.1, step) };
            Ok(logits.adam_(&gradient, &exp_avg, &exp_avg_sq, &step)?)
        })?;
    }
    Ok(logits.softmax(0)?.to_vec::<f64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::Device;

    fn two_models() -> (Tensor, Tensor) {
        let p = [0.8, 0.2, 0.4, 0.6, 0.9, 0.1, 0.3, 0.7];
        (Tensor::from_vec(&p, &[2, 2, 2]).unwrap(), Tensor::from_vec(&[1f32, 1.0, 1.0, 0.0], &[2, 2]).unwrap())
    }

    #[test]
    fn rules_match_a_hand_calculation_and_ignore_absent_models() {
        let (p, present) = two_models();
        let first = |rule| combine(&p, &present, rule, None).unwrap().to_vec::<f64>().unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(first(CombinationRule::Mean)[0], 0.6);
        near(first(CombinationRule::Product)[0], 0.32 / (0.32 + 0.12));
        near(first(CombinationRule::LogPool)[0], 0.32f64.sqrt() / (0.32f64.sqrt() + 0.12f64.sqrt()));
        near(first(CombinationRule::Vote)[0], 0.5);
        near(first(CombinationRule::Max)[0], 0.8 / 1.4);
        for rule in [CombinationRule::Mean, CombinationRule::Product, CombinationRule::LogPool, CombinationRule::Max] {
            near(first(rule)[2], 0.9);
        }
        let none = Tensor::zeros(&[2, 2], DType::F32, Device::Cpu).unwrap();
        assert!(
            combine(&p, &none, CombinationRule::Product, None)
                .unwrap()
                .to_vec::<f64>()
                .unwrap()
                .iter()
                .all(|v| *v == 0.5)
        );
        assert!(combine(&p, &none, CombinationRule::Mean, Some(&[1.0])).is_err());
    }

    #[test]
    fn the_accurate_model_gets_the_weight() {
        let mut p = Vec::new();
        let labels: Vec<i64> = (0..200).map(|i| i % 2).collect();
        for (row, label) in labels.iter().enumerate() {
            let accurate = if *label == 1 { [0.2, 0.8] } else { [0.8, 0.2] };
            let noise = if row % 3 == 0 { [0.9, 0.1] } else { [0.1, 0.9] };
            p.extend(accurate.into_iter().chain(noise));
        }
        let p = Tensor::from_vec(&p, &[200, 2, 2]).unwrap();
        let present = Tensor::ones(&[200, 2], DType::F32, Device::Cpu).unwrap();
        for rule in [CombinationRule::Mean, CombinationRule::LogPool] {
            let weights = fit_weights(&p, &present, &labels, rule).unwrap();
            assert!(weights[0] > 0.9 && (weights[0] + weights[1] - 1.0).abs() < 1e-9, "{weights:?}");
        }
        assert!(fit_weights(&p, &present, &labels, CombinationRule::Vote).is_err());
    }
}
