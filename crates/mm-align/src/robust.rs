//! Learning from pairs some of which do not belong together. Networks learn what is right before they learn what is wrong by heart (Arpit
//! 2017), so pairs of large loss are left out (small-loss selection, Han 2018), or believed as far as a mixture of two Gaussians over
//! the losses says, and the rest of their target given to what the model itself finds (soft re-labelling, as in NCR, Huang 2021).

use crate::{
    Result,
    contrastive::{Similarity, hide, toward},
};
use mm_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// What is done about pairs that may not belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RobustKind {
    /// The pairs of largest loss in a batch are left out.
    SmallLoss,
    /// Each pair is believed as far as its loss allows; the model's own view takes the rest.
    Relabel,
}

/// Settings of learning from pairs some of which are wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RobustConfig {
    /// What is done.
    pub kind: RobustKind,
    /// Share of the pairs that is thought to be wrong; re-labelling finds out by itself.
    #[serde(default = "share")]
    pub share: f64,
    /// Steps in which the model learns from all pairs as they are; small-loss selection grows over as many more.
    pub warmup: u64,
}

fn share() -> f64 {
    0.1
}

/// `InfoNCE` of each row, both ways, averaged: `[rows]`.
pub fn each_info_nce(similarity: &Similarity, scale: &Tensor, same: Option<&Tensor>) -> Result<Tensor> {
    losses(&hide(&similarity.values().mul(scale)?, same)?)
}

fn losses(logits: &Tensor) -> Result<Tensor> {
    let own = logits.diagonal()?;
    let forth = logits.logsumexp(1)?.sub(&own)?;
    let back = logits.logsumexp(0)?.sub(&own)?;
    Ok(forth.add(&back)?.mul_scalar(0.5)?)
}

/// `InfoNCE` of the share `keep` of the rows that have the smallest loss.
pub fn small_loss(similarity: &Similarity, scale: &Tensor, same: Option<&Tensor>, keep: f64) -> Result<Tensor> {
    let each = each_info_nce(similarity, scale, same)?;
    let losses = each.to_vec::<f64>()?;
    let mut order: Vec<usize> = (0..losses.len()).collect();
    order.sort_by(|a, b| losses[*a].total_cmp(&losses[*b]));
    order.truncate(((losses.len() as f64 * keep).ceil() as usize).clamp(1, losses.len()));
    let kept: Vec<i64> = order.into_iter().map(|r| r as i64).collect();
    Ok(each.index_select(0, &Tensor::from_slice(&kept)?.to_device(each.device())?)?.mean()?)
}

/// Cross-entropy both ways with targets that are shared between the pair as given, as far as it is believed ([`believed`] of this batch's
/// losses), and what the model finds now.
pub fn relabelled(similarity: &Similarity, scale: &Tensor, same: Option<&Tensor>) -> Result<Tensor> {
    let logits = hide(&similarity.values().mul(scale)?, same)?;
    let rows = logits.size(0)?;
    let shares: Vec<f32> = believed(&losses(&logits)?.to_vec::<f64>()?).into_iter().map(|w| w as f32).collect();
    let trust = Tensor::from_slice(&shares)?.to_device(logits.device())?.unsqueeze(1)?; // [rows, 1]
    let given = Tensor::eye(rows, DType::F32, logits.device())?.mul(&trust)?;
    let doubt = trust.neg()?.add_scalar(1.0)?;
    let one_way =
        |logits: &Tensor| -> Result<Tensor> { toward(logits, &given.add(&logits.detach()?.softmax(1)?.mul(&doubt)?)?) };
    Ok(one_way(&logits)?.add(&one_way(&logits.transpose(0, 1)?)?)?.mul_scalar(0.5)?)
}

/// How likely each of some losses is of the lower of two Gaussians, fitted to them by expectation and maximisation; ones where there
/// are too few, or they do not differ.
pub fn believed(losses: &[f64]) -> Vec<f64> {
    let count = losses.len() as f64;
    let mean = losses.iter().sum::<f64>() / count;
    let variance = losses.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    if losses.len() < 8 || variance.is_nan() || variance <= 1e-12 {
        return vec![1.0; losses.len()];
    }
    let mut sorted = losses.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((count - 1.0) * share) as usize];
    let mut means = [at(0.25), at(0.9)];
    let mut variances = [variance; 2];
    let mut weights = [0.5f64; 2];
    let density = |x: f64, mean: f64, variance: f64| (-(x - mean).powi(2) / (2.0 * variance)).exp() / variance.sqrt();
    let mut lower = vec![1.0; losses.len()];
    for _ in 0..50 {
        for (share, x) in lower.iter_mut().zip(losses) {
            let [a, b] = [0, 1].map(|k: usize| weights[k] * density(*x, means[k], variances[k]));
            // Far from both, the nearer counts.
            let nearer = if (x - means[0]).abs() <= (x - means[1]).abs() { 1.0 } else { 0.0 };
            *share = if a + b > 1e-300 { a / (a + b) } else { nearer };
        }
        for k in 0..2 {
            let of = |share: f64| if k == 0 { share } else { 1.0 - share };
            let total: f64 = lower.iter().map(|s| of(*s)).sum::<f64>().max(1e-9);
            means[k] = lower.iter().zip(losses).map(|(s, x)| of(*s) * x).sum::<f64>() / total;
            let spread = lower.iter().zip(losses).map(|(s, x)| of(*s) * (x - means[k]).powi(2)).sum::<f64>() / total;
            variances[k] = spread.max(variance * 1e-3);
            weights[k] = total / count;
        }
    }
    if means[0] > means[1] {
        lower.iter_mut().for_each(|s| *s = 1.0 - *s);
    }
    lower
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contrastive::{hard_info_nce, info_nce};
    use mm_core::{Device, seed::manual_seed};

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
    }

    fn number(x: Result<Tensor>) -> f64 {
        x.unwrap().to_f64().unwrap()
    }

    #[test]
    fn wrong_pairs_are_found_and_count_less() {
        manual_seed(3);
        let (rows, wrong) = (64, 8);
        let a = randn(&[rows, 16]);
        let order: Vec<i64> = (0..wrong).map(|r| (r + 1) % wrong).chain(wrong..rows).collect();
        let b = a.add(&randn(&[rows, 16]).mul_scalar(0.2).unwrap()).unwrap();
        let b = b.index_select(0, &Tensor::from_slice(&order).unwrap()).unwrap();
        let similarity = Similarity::cosine(&a, &b).unwrap();
        let scale = Tensor::from_slice(&[10f32]).unwrap();
        let losses = each_info_nce(&similarity, &scale, None).unwrap().to_vec::<f64>().unwrap();
        for (row, share) in believed(&losses).into_iter().enumerate() {
            assert_eq!(share < 0.5, (row as i64) < wrong, "row {row}: {share}");
        }
        // All of them is plain InfoNCE; without the wrong ones next to nothing is lost.
        let plain = number(info_nce(&similarity, &scale, None, 0.0));
        assert!((number(small_loss(&similarity, &scale, None, 1.0)) - plain).abs() < 1e-5);
        assert!(number(small_loss(&similarity, &scale, None, 0.875)) < 0.1 * plain);
        assert!(number(relabelled(&similarity, &scale, None)) < 0.5 * plain);
        // Pairs that are all believed are learned as they are.
        let few = Similarity::cosine(&a.narrow(0, 20, 6).unwrap(), &b.narrow(0, 20, 6).unwrap()).unwrap();
        let same = number(relabelled(&few, &scale, None)) - number(hard_info_nce(&few, &scale, 0.0));
        assert!(same.abs() < 1e-5);
    }

    #[test]
    fn numbers_that_do_not_differ_are_all_believed() {
        assert_eq!(believed(&[0.5; 20]), vec![1.0; 20]);
        assert_eq!(believed(&[0.1, 9.0]), vec![1.0; 2]);
        assert!(believed(&[]).is_empty());
        let far: Vec<f64> = (0..30).map(|n| if n < 3 { 1e6 } else { f64::from(n) * 1e-3 }).collect();
        assert!(believed(&far).iter().all(|s| s.is_finite()));
    }
}
