//! Balancing modalities during joint training: on-the-fly gradient modulation and gradient blending.

use crate::{Error, Result};

/// Gradient scale of each modality (OGM-GE), in (0, 1]. The score of a modality is the sum over a batch of the
/// probability that the modality alone gives to the correct class. A modality whose score is r > 1 times the mean of
/// the others gets the scale `1 − tanh(alpha · (r − 1))`; all others get 1.
///
/// From *Balanced Multimodal Learning via On-the-fly Gradient Modulation* (Peng et al., 2022,
/// <https://arxiv.org/abs/2203.15332>). The paper uses `1 − tanh(alpha · r)`, which drops abruptly at r = 1.
///
/// # Errors
/// When a score is negative or not finite.
pub fn gradient_scales(scores: &[f64], alpha: f64) -> Result<Vec<f64>> {
    if scores.iter().any(|s| !(s.is_finite() && *s >= 0.0)) {
        return Err(Error::config("gradient modulation", format!("{scores:?}"), "sums of probabilities"));
    }
    let all: f64 = scores.iter().sum();
    let others = (scores.len().max(2) - 1) as f64;
    Ok(scores
        .iter()
        .map(|own| {
            let ratio = own / ((all - own) / others).max(1e-9);
            if ratio > 1.0 && scores.len() > 1 { 1.0 - (alpha * (ratio - 1.0)).tanh() } else { 1.0 }
        })
        .collect())
}

/// Loss weights of several heads by gradient blending: proportional to the ratio of generalization to squared
/// overfitting between two checkpoints. `heads` has, for each head, training and validation loss at the first
/// checkpoint, then at the second. Weights sum to one.
///
/// From *What Makes Training Multi-Modal Classification Networks Hard?* (Wang, Tran and Feiszli, 2020,
/// <https://arxiv.org/abs/1905.12681>).
///
/// # Errors
/// When a loss is not finite.
pub fn blending_weights(heads: &[[f64; 4]]) -> Result<Vec<f64>> {
    let mut weights = Vec::new();
    for [train_before, valid_before, train_after, valid_after] in heads {
        let generalization = (valid_before - valid_after).max(0.0);
        let overfitting = ((valid_after - train_after) - (valid_before - train_before)).abs().max(1e-3);
        weights.push(generalization / overfitting.powi(2));
    }
    let total: f64 = weights.iter().sum();
    if !total.is_finite() {
        return Err(Error::config("gradient blending", format!("{heads:?}"), "finite losses"));
    }
    let uniform = 1.0 / heads.len().max(1) as f64;
    Ok(weights.into_iter().map(|w| if total > 0.0 { w / total } else { uniform }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, Tensor};

    #[test]
    fn dominant_modalities_are_scaled_down_and_generalizing_heads_weigh_more() {
        let scales = gradient_scales(&[8.0, 4.0], 0.5).unwrap();
        assert!((scales[0] - (1.0 - 0.5f64.tanh())).abs() < 1e-9 && scales[1] == 1.0);
        assert_eq!(gradient_scales(&[3.0, 3.0], 0.5).unwrap(), [1.0, 1.0]);
        let weights = blending_weights(&[[1.0, 1.0, 0.5, 0.6], [1.0, 1.0, 0.1, 0.9]]).unwrap();
        assert!(weights[0] > 0.95 && (weights[0] + weights[1] - 1.0).abs() < 1e-9);
        let x = Tensor::ones(&[2], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let y = x.scale_gradient(0.25).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), [1.0, 1.0]);
        y.sum().unwrap().backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [0.25, 0.25]);
    }
}
