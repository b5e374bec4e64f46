//! Calibration by temperature scaling.

use crate::{Error, Result};
use mm_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

/// Calibration by dividing logits by one temperature.
///
/// *On Calibration of Modern Neural Networks* (Guo et al., 2017, <https://arxiv.org/abs/1706.04599>).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TemperatureScaling(pub f64);

/// Bounds of the temperature: 1/20 and 20.
const MAX_TEMPERATURE: f64 = 20.0;
const ITERATIONS: usize = 40;

impl TemperatureScaling {
    /// Fits the temperature that maximizes the likelihood of the classes on held-out logits `[rows, classes]`.
    ///
    /// # Errors
    /// When the numbers of rows and labels differ, or there is no row.
    pub fn fit(logits: &Tensor, labels: &[i64]) -> Result<Self> {
        let shape = logits.shape();
        if shape.len() != 2 || shape[0] as usize != labels.len() || labels.is_empty() {
            let found = format!("{shape:?} and {} labels", labels.len());
            return Err(Error::config("temperature", found, "[rows, classes] and one label per row, at least one row"));
        }
        let logits = logits.to_dtype(DType::F64)?;
        let target = Tensor::from_slice(labels)?.to_device(logits.device())?.unsqueeze(1)?;
        let loss = |log_temperature: f64| -> Result<f64> {
            let log_p = logits.mul_scalar((-log_temperature).exp())?.log_softmax(1)?;
            Ok(-log_p.gather(1, &target)?.mean()?.to_f64()?)
        };
        // The loss is unimodal in the logarithm of the temperature: golden-section search.
        let (mut low, mut high) = (-MAX_TEMPERATURE.ln(), MAX_TEMPERATURE.ln());
        let golden = (5f64.sqrt() - 1.0) / 2.0;
        for _ in 0..ITERATIONS {
            let (a, b) = (high - golden * (high - low), low + golden * (high - low));
            if loss(a)? < loss(b)? { high = b } else { low = a }
        }
        Ok(Self(f64::midpoint(low, high).exp()))
    }

    /// Calibrates logits `[rows, classes]`.
    pub fn apply(&self, logits: &Tensor) -> Result<Tensor> {
        Ok(logits.mul_scalar(1.0 / self.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_temperature_is_recovered() {
        // Classes occur with the frequency of softmax(logits / 2): the temperature is 2.
        let (mut logits, mut labels) = (Vec::new(), Vec::new());
        for step in -20i32..=20 {
            let logit = f64::from(step) / 5.0;
            let ones = (1000.0 / (1.0 + (-logit / 2.0).exp())).round() as usize;
            for sample in 0..1000 {
                logits.extend([0.0, logit]);
                labels.push(i64::from(sample < ones));
            }
        }
        let logits = Tensor::from_vec(&logits, &[labels.len() as i64, 2]).unwrap();
        let fitted = TemperatureScaling::fit(&logits, &labels).unwrap();
        assert!((fitted.0 - 2.0).abs() < 0.02);
        assert!(TemperatureScaling::fit(&logits, &labels[1..]).is_err());
    }
}
