//! Balance between modalities while they learn together: on-the-fly gradient modulation (OGM-GE, Peng 2022) and gradient blending
//! (Wang 2020).

use crate::{Error, Result};
use mm_core::Tensor;

/// The same numbers, whose gradient is multiplied by `scale` on its way back: what modulates the gradient of all that made them.
pub fn scale_gradient(x: &Tensor, scale: f64) -> Result<Tensor> {
    Ok(x.mul_scalar(scale)?.add(&x.detach()?.mul_scalar(1.0 - scale)?)?)
}

/// How much of its gradient each modality keeps. `scores` are the sums over a batch of the probability that each modality alone gives the
/// right class; one that is ahead of the mean of the others by the ratio r keeps `1 − tanh(alpha · (r − 1))`, the rest keep all.
///
/// (The paper modulates by tanh(alpha · r) for r > 1, which takes most of the gradient away already at r just above 1; the difference to one
/// makes it begin at nothing.)
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

/// Weights of the losses of several heads (each modality's, and all together's): in proportion to how much each generalised over how much it
/// overfitted, squared, between two checkpoints. For each head: training and validation loss before, training and validation loss after.
pub fn blending_weights(heads: &[[f64; 4]]) -> Result<Vec<f64>> {
    let mut weights = Vec::new();
    for [train_before, valid_before, train_after, valid_after] in heads {
        let generalised = (valid_before - valid_after).max(0.0);
        let overfitted = ((valid_after - train_after) - (valid_before - train_before)).abs().max(1e-3);
        weights.push(generalised / overfitted.powi(2));
    }
    let total: f64 = weights.iter().sum();
    if !total.is_finite() {
        return Err(Error::config("gradient blending", format!("{heads:?}"), "finite losses"));
    }
    let even = 1.0 / heads.len().max(1) as f64;
    Ok(weights.into_iter().map(|w| if total > 0.0 { w / total } else { even }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device};

    #[test]
    fn the_one_ahead_is_held_back_and_the_one_that_generalises_weighs_more() {
        let scales = gradient_scales(&[8.0, 4.0], 0.5).unwrap();
        assert!((scales[0] - (1.0 - 0.5f64.tanh())).abs() < 1e-9 && scales[1] == 1.0);
        assert_eq!(gradient_scales(&[3.0, 3.0], 0.5).unwrap(), [1.0, 1.0]);
        let weights = blending_weights(&[[1.0, 1.0, 0.5, 0.6], [1.0, 1.0, 0.1, 0.9]]).unwrap();
        assert!(weights[0] > 0.95 && (weights[0] + weights[1] - 1.0).abs() < 1e-9);
        let x = Tensor::ones(&[2], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let y = scale_gradient(&x, 0.25).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), [1.0, 1.0]);
        y.sum().unwrap().backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [0.25, 0.25]);
    }
}
