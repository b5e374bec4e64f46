//! Contrastive learning with noisy pairs (noisy correspondence). Networks fit clean pairs before they memorize wrong
//! ones, so pairs with a large loss are dropped, or their target is shared with the model's own prediction.

use super::{
    info_nce::{info_nce_per_row, per_row, soft_cross_entropy},
    similarity::{Similarity, mask_false_negatives},
    temperature::Temperature,
};
use crate::Result;
use mm_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// The method for noisy pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RobustKind {
    /// The pairs with the largest loss in a batch are dropped ([`small_loss_info_nce`]).
    SmallLoss,
    /// The target of each pair is mixed with the model's prediction by the probability that the pair is clean
    /// ([`soft_label_info_nce`]).
    SoftLabels,
}

/// Settings for training on noisy pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustConfig {
    /// The method.
    pub kind: RobustKind,
    /// Expected fraction of wrong pairs, in [0, 1). Only `small_loss` uses it.
    #[serde(default = "default_noise_rate")]
    pub noise_rate: f64,
    /// Number of steps of ordinary training before the method applies; `small_loss` then increases the fraction of
    /// dropped pairs linearly to `noise_rate` over as many further steps.
    pub warmup_steps: u64,
}

fn default_noise_rate() -> f64 {
    0.1
}

/// Mean `InfoNCE` of the rows with the smallest loss; `keep` is their fraction of all rows, in (0, 1].
///
/// From *Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels* (Han et al., 2018,
/// <https://arxiv.org/abs/1804.06872>).
///
/// # Errors
/// When a fixed temperature is not above zero, or the shapes do not fit together.
pub fn small_loss_info_nce<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    false_negatives: Option<&Tensor>,
    keep: f64,
) -> Result<Tensor> {
    let row_losses = info_nce_per_row(similarity, temperature, false_negatives)?;
    let losses = row_losses.to_vec::<f64>()?;
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|a, b| losses[*a].total_cmp(&losses[*b]));
    order.truncate(((losses.len() as f64 * keep).ceil() as usize).clamp(1, losses.len()));
    let selected: Vec<i64> = order.into_iter().map(|r| r as i64).collect();
    Ok(row_losses.index_select(0, &Tensor::from_slice(&selected)?.to_device(row_losses.device())?)?.mean()?)
}

/// `InfoNCE` in both directions with soft targets: the target of a row is `p · one-hot + (1 − p) · prediction`, where
/// `p` is the [`clean_probability`] of its pair given the losses of this batch.
///
/// After *Learning with Noisy Correspondence for Cross-modal Matching* (Huang et al., 2021, NeurIPS 34).
///
/// # Errors
/// When a fixed temperature is not above zero, or the shapes do not fit together.
pub fn soft_label_info_nce<'a>(
    similarity: &Similarity,
    temperature: impl Into<Temperature<'a>>,
    false_negatives: Option<&Tensor>,
) -> Result<Tensor> {
    let logits = mask_false_negatives(&temperature.into().scale(similarity.values())?, false_negatives)?;
    let rows = logits.size(0)?;
    let clean: Vec<f32> =
        clean_probability(&per_row(&logits)?.to_vec::<f64>()?).into_iter().map(|p| p as f32).collect();
    let clean = Tensor::from_slice(&clean)?.to_device(logits.device())?.unsqueeze(1)?; // [rows, 1]
    let given = Tensor::eye(rows, DType::F32, logits.device())?.mul(&clean)?;
    let noisy = clean.neg()?.add_scalar(1.0)?;
    let direction = |logits: &Tensor| -> Result<Tensor> {
        soft_cross_entropy(logits, &given.add(&logits.detach()?.softmax(1)?.mul(&noisy)?)?)
    };
    Ok(direction(&logits)?.add(&direction(&logits.transpose(0, 1)?)?)?.mul_scalar(0.5)?)
}

/// Fewer losses than this are not clustered.
const MIN_LOSSES: usize = 8;
const EM_ITERATIONS: usize = 50;

/// Probability that each pair is clean: the posterior of the component with the lower mean in a mixture of two
/// Gaussians that is fitted to the losses by expectation-maximization. All ones when there are fewer than eight losses
/// or all are equal.
pub fn clean_probability(losses: &[f64]) -> Vec<f64> {
    let count = losses.len() as f64;
    let mean = losses.iter().sum::<f64>() / count;
    let variance = losses.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    if losses.len() < MIN_LOSSES || variance.is_nan() || variance <= 1e-12 {
        return vec![1.0; losses.len()];
    }
    let mut sorted = losses.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quantile = |q: f64| sorted[((count - 1.0) * q) as usize];
    let mut means = [quantile(0.25), quantile(0.9)];
    let mut variances = [variance; 2];
    let mut weights = [0.5f64; 2];
    let density = |x: f64, mean: f64, variance: f64| (-(x - mean).powi(2) / (2.0 * variance)).exp() / variance.sqrt();
    let mut lower = vec![1.0; losses.len()];
    for _ in 0..EM_ITERATIONS {
        for (posterior, x) in lower.iter_mut().zip(losses) {
            let [a, b] = [0, 1].map(|k: usize| weights[k] * density(*x, means[k], variances[k]));
            // Where both densities underflow, the nearer mean takes all.
            let nearer = if (x - means[0]).abs() <= (x - means[1]).abs() { 1.0 } else { 0.0 };
            *posterior = if a + b > 1e-300 { a / (a + b) } else { nearer };
        }
        for k in 0..2 {
            let of = |posterior: f64| if k == 0 { posterior } else { 1.0 - posterior };
            let total: f64 = lower.iter().map(|p| of(*p)).sum::<f64>().max(1e-9);
            means[k] = lower.iter().zip(losses).map(|(p, x)| of(*p) * x).sum::<f64>() / total;
            let spread = lower.iter().zip(losses).map(|(p, x)| of(*p) * (x - means[k]).powi(2)).sum::<f64>() / total;
            variances[k] = spread.max(variance * 1e-3);
            weights[k] = total / count;
        }
    }
    if means[0] > means[1] {
        lower.iter_mut().for_each(|p| *p = 1.0 - *p);
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contrastive::{InfoNceOptions, hard_negative_info_nce, info_nce};
    use mm_core::{Device, seed::manual_seed};

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
    }

    fn value(x: Result<Tensor>) -> f64 {
        x.unwrap().to_f64().unwrap()
    }

    #[test]
    fn wrong_pairs_are_detected_and_weigh_less() {
        manual_seed(3);
        let (rows, wrong) = (64, 8);
        let a = randn(&[rows, 16]);
        let order: Vec<i64> = (0..wrong).map(|r| (r + 1) % wrong).chain(wrong..rows).collect();
        let b = a.add(&randn(&[rows, 16]).mul_scalar(0.2).unwrap()).unwrap();
        let b = b.index_select(0, &Tensor::from_slice(&order).unwrap()).unwrap();
        let similarity = Similarity::cosine(&a, &b).unwrap();
        let scale = 0.1;
        let losses = info_nce_per_row(&similarity, scale, None).unwrap().to_vec::<f64>().unwrap();
        for (row, p) in clean_probability(&losses).into_iter().enumerate() {
            assert_eq!(p < 0.5, (row as i64) < wrong, "row {row}: {p}");
        }
        // Keeping every row is plain InfoNCE; without the wrong ones almost no loss is left.
        let plain = value(info_nce(&similarity, scale, InfoNceOptions::default()));
        assert!((value(small_loss_info_nce(&similarity, scale, None, 1.0)) - plain).abs() < 1e-5);
        assert!(value(small_loss_info_nce(&similarity, scale, None, 0.875)) < 0.1 * plain);
        assert!(value(soft_label_info_nce(&similarity, scale, None)) < 0.5 * plain);
        // Too few pairs to cluster: plain InfoNCE.
        let few = Similarity::cosine(&a.narrow(0, 20, 6).unwrap(), &b.narrow(0, 20, 6).unwrap()).unwrap();
        let difference =
            value(soft_label_info_nce(&few, scale, None)) - value(hard_negative_info_nce(&few, scale, 0.0));
        assert!(difference.abs() < 1e-5);
    }

    #[test]
    fn equal_or_few_losses_are_all_clean() {
        assert_eq!(clean_probability(&[0.5; 20]), vec![1.0; 20]);
        assert_eq!(clean_probability(&[0.1, 9.0]), vec![1.0; 2]);
        assert!(clean_probability(&[]).is_empty());
        let outliers: Vec<f64> = (0..30).map(|n| if n < 3 { 1e6 } else { f64::from(n) * 1e-3 }).collect();
        assert!(clean_probability(&outliers).iter().all(|p| p.is_finite()));
    }
}
