//! Rules that combine probabilities (Kittler 1998): means, products, votes, and weights fitted on rows that were not trained on.

use crate::{Error, Result};
use mm_core::{AdamStep, DType, Tensor, enable_grad, no_grad};
use serde::{Deserialize, Serialize};

/// How the models' probabilities become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Their mean, weighted where weights are given (linear opinion pool).
    Mean,
    /// Their product, normalised: as if they were independent given the class and the classes equally frequent.
    Product,
    /// Their weighted geometric mean (logarithmic opinion pool).
    LogPool,
    /// The share of models that have the class for their likeliest.
    Vote,
    /// The largest of each class, normalised.
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

/// `[rows, classes]`, each row summing to one; a row that has no model's word gets the same for each class.
pub fn combine(probabilities: &Tensor, present: &Tensor, rule: Rule, weights: Option<&[f64]>) -> Result<Tensor> {
    let [_, models, classes] = check(probabilities, present, weights)?;
    let p = probabilities.to_dtype(DType::F64)?;
    let given = match weights {
        Some(weights) => Tensor::from_slice(weights)?.to_device(p.device())?,
        None => Tensor::ones(&[models], DType::F64, p.device())?,
    };
    let there = present.to_dtype(DType::F64)?; // [rows, models]
    let shares = there.mul(&given)?;
    let shares = shares.div(&shares.sum_dim(&[1], true)?.clamp_min(1e-12)?)?.unsqueeze(2)?; // [rows, models, 1]
    let logs = p.clamp_min(1e-12)?.log()?;
    let any = there.amax(1, true)?; // [rows, 1]
    let mixed = match rule {
        Rule::Mean => p.mul(&shares)?.sum_dim(&[1], false)?,
        Rule::Product => logs.mul(&there.unsqueeze(2)?)?.sum_dim(&[1], false)?.softmax(1)?,
        Rule::LogPool => logs.mul(&shares)?.sum_dim(&[1], false)?.softmax(1)?,
        Rule::Vote => p.argmax(2)?.one_hot(classes)?.to_dtype(DType::F64)?.mul(&shares)?.sum_dim(&[1], false)?,
        Rule::Max => p.mul(&there.unsqueeze(2)?)?.amax(1, false)?,
    };
    let total = mixed.sum_dim(&[1], true)?;
    let even = any.neg()?.add_scalar(1.0)?.mul_scalar(1.0 / classes as f64)?;
    Ok(mixed.div(&total.clamp_min(1e-12)?)?.mul(&any)?.add(&even)?)
}

/// Weights of the models (they sum to one) under which the pooled probabilities of these rows' classes are likeliest; for
/// [`Rule::Mean`] and [`Rule::LogPool`]. The rows must not be ones that the models were trained on. A slight pull to equal weights keeps
/// few rows from deciding everything.
pub fn fit_weights(probabilities: &Tensor, present: &Tensor, labels: &[i64], rule: Rule) -> Result<Vec<f64>> {
    let [rows, models, classes] = check(probabilities, present, None)?;
    if labels.len() as i64 != rows || labels.iter().any(|l| !(0..classes).contains(l)) {
        let found = format!("{} labels up to {:?}", labels.len(), labels.iter().max());
        return Err(Error::config("late fusion weights", found, format!("{rows} labels below {classes}")));
    }
    if !matches!(rule, Rule::Mean | Rule::LogPool) {
        return Err(Error::config(
            "late fusion weights",
            format!("{rule:?}"),
            "a rule that has weights: mean, log_pool",
        ));
    }
    let p = probabilities.to_dtype(DType::F64)?.clamp_min(1e-9)?;
    let there = present.to_dtype(DType::F64)?;
    let truth = Tensor::from_slice(labels)?.to_device(p.device())?.unsqueeze(1)?;
    let logits = Tensor::zeros(&[models], DType::F64, p.device())?.set_requires_grad(true)?;
    let (first, second) = (logits.detach()?.zeros_like()?, logits.detach()?.zeros_like()?);
    for step in 1..=200 {
        logits.zero_grad();
        enable_grad(|| -> Result<()> {
            let shares = logits.softmax(0)?.mul(&there)?;
            let shares = shares.div(&shares.sum_dim(&[1], true)?.clamp_min(1e-12)?)?.unsqueeze(2)?;
            let logs = match rule {
                Rule::LogPool => p.log()?.mul(&shares)?.sum_dim(&[1], false)?.log_softmax(1)?,
                _ => p.mul(&shares)?.sum_dim(&[1], false)?.clamp_min(1e-12)?.log()?,
            };
            let loss = logs.gather(1, &truth)?.mean()?.neg()?;
            let even = logits.pow(2.0)?.sum()?.mul_scalar(0.5 / rows as f64)?;
            Ok(loss.add(&even)?.backward()?)
        })?;
        let Some(gradient) = logits.grad() else { break };
        no_grad(|| -> Result<()> {
            let step = AdamStep { beta2: 0.99, ..AdamStep::new(0.1, step) };
            Ok(logits.adam_(&gradient, &first, &second, &step)?)
        })?;
    }
    Ok(logits.softmax(0)?.to_vec::<f64>()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::Device;

    fn two() -> (Tensor, Tensor) {
        let p = [0.8, 0.2, 0.4, 0.6, 0.9, 0.1, 0.3, 0.7];
        (Tensor::from_vec(&p, &[2, 2, 2]).unwrap(), Tensor::from_vec(&[1f32, 1.0, 1.0, 0.0], &[2, 2]).unwrap())
    }

    #[test]
    fn rules_give_what_a_hand_calculates_and_leave_out_what_is_missing() {
        let (p, present) = two();
        let first = |rule| combine(&p, &present, rule, None).unwrap().to_vec::<f64>().unwrap();
        let near = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        near(first(Rule::Mean)[0], 0.6);
        near(first(Rule::Product)[0], 0.32 / (0.32 + 0.12));
        near(first(Rule::LogPool)[0], 0.32f64.sqrt() / (0.32f64.sqrt() + 0.12f64.sqrt()));
        near(first(Rule::Vote)[0], 0.5);
        near(first(Rule::Max)[0], 0.8 / 1.4);
        for rule in [Rule::Mean, Rule::Product, Rule::LogPool, Rule::Max] {
            near(first(rule)[2], 0.9);
        }
        let none = Tensor::zeros(&[2, 2], DType::F32, Device::Cpu).unwrap();
        assert!(combine(&p, &none, Rule::Product, None).unwrap().to_vec::<f64>().unwrap().iter().all(|v| *v == 0.5));
        assert!(combine(&p, &none, Rule::Mean, Some(&[1.0])).is_err());
    }

    #[test]
    fn weights_go_to_the_model_that_is_right() {
        let mut p = Vec::new();
        let labels: Vec<i64> = (0..200).map(|i| i % 2).collect();
        for (row, label) in labels.iter().enumerate() {
            let right = if *label == 1 { [0.2, 0.8] } else { [0.8, 0.2] };
            let noise = if row % 3 == 0 { [0.9, 0.1] } else { [0.1, 0.9] };
            p.extend(right.into_iter().chain(noise));
        }
        let p = Tensor::from_vec(&p, &[200, 2, 2]).unwrap();
        let present = Tensor::ones(&[200, 2], DType::F32, Device::Cpu).unwrap();
        for rule in [Rule::Mean, Rule::LogPool] {
            let weights = fit_weights(&p, &present, &labels, rule).unwrap();
            assert!(weights[0] > 0.9 && (weights[0] + weights[1] - 1.0).abs() < 1e-9, "{weights:?}");
        }
        assert!(fit_weights(&p, &present, &labels, Rule::Vote).is_err());
    }
}
