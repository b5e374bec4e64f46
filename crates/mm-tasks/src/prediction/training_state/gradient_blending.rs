//! Weights of the heads' losses by gradient blending.

use super::FUSED;
use mm_core::Modality;
use mm_fusion::training::blending_weights;
use std::collections::BTreeMap;

/// Gradient blending: heads that generalize get more weight, heads that overfit less. The weights are estimated at each
/// evaluation from the change of the losses since the first one.
///
/// From *What Makes Training Multi-Modal Classification Networks Hard?* (Wang et al., 2020,
/// <https://arxiv.org/abs/1905.12681>).
pub(in super::super) struct GradientBlending {
    heads: Vec<String>,
    weights: Vec<f64>,
    /// Sum and number of the training losses since the last evaluation.
    sums: Vec<[f64; 2]>,
    /// Training and validation loss at the first evaluation; NaN before it.
    first: Vec<[f64; 2]>,
}

impl GradientBlending {
    /// Equal weights for the fused head and one head per modality.
    pub(in super::super) fn new(modalities: &[Modality]) -> Self {
        let heads: Vec<String> =
            std::iter::once(FUSED.to_owned()).chain(modalities.iter().map(ToString::to_string)).collect();
        let count = heads.len();
        Self {
            heads,
            weights: vec![1.0 / count as f64; count],
            sums: vec![[0.0; 2]; count],
            first: vec![[f64::NAN; 2]; count],
        }
    }

    /// The weight of a head's loss; all sum to 1.
    pub(in super::super) fn weight(&self, head: &str) -> f64 {
        self.heads.iter().position(|h| h == head).map_or(0.0, |n| self.weights[n])
    }

    /// Adds a training loss of a head.
    pub(in super::super) fn record_training_loss(&mut self, head: &str, loss: f64) {
        if let Some(n) = self.heads.iter().position(|h| h == head) {
            self.sums[n] = [self.sums[n][0] + loss, self.sums[n][1] + 1.0];
        }
    }

    /// Estimates the weights from the heads' losses on validation rows; returns the weights that are used from now on.
    pub(in super::super) fn update(&mut self, valid: &BTreeMap<String, f64>) -> mm_fusion::Result<Vec<(String, f64)>> {
        let now: Vec<[f64; 2]> = self
            .heads
            .iter()
            .zip(&self.sums)
            .map(|(head, [sum, count])| [sum / count, valid.get(head).copied().unwrap_or(f64::NAN)])
            .collect();
        let losses: Vec<[f64; 4]> = self.first.iter().zip(&now).map(|(f, n)| [f[0], f[1], n[0], n[1]]).collect();
        // The weights stay where a head has no rows to be measured on, and at the first evaluation.
        if losses.iter().flatten().all(|v| v.is_finite()) {
            self.weights = blending_weights(&losses)?;
        }
        // Compared with the first evaluation: between consecutive ones a head that has converged would seem to learn
        // nothing.
        if self.first.iter().flatten().any(|v| !v.is_finite()) && now.iter().flatten().all(|v| v.is_finite()) {
            self.first = now;
        }
        self.sums.iter_mut().for_each(|s| *s = [0.0; 2]);
        Ok(self.heads.iter().cloned().zip(self.weights.iter().copied()).collect())
    }

    /// All values, for a checkpoint.
    pub(super) fn to_values(&self) -> Vec<f64> {
        let pairs = self.sums.iter().chain(&self.first).flatten();
        self.weights.iter().chain(pairs).copied().collect()
    }

    /// Takes back [`GradientBlending::to_values`]; values of another number of heads are ignored.
    pub(super) fn load_values(&mut self, values: &[f64]) {
        let count = self.heads.len();
        if values.len() == 5 * count {
            self.weights = values[..count].to_vec();
            let pairs = |from: usize| values[from..from + 2 * count].chunks(2).map(|p| [p[0], p[1]]).collect();
            (self.sums, self.first) = (pairs(count), pairs(3 * count));
        }
    }
}
