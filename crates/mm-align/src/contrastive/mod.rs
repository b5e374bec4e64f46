//! Contrastive losses: paired rows are pulled together, others pushed apart.

mod grad_cache;
mod info_nce;
mod pairwise;
mod robust;
mod self_supervised;
mod similarity;
mod temperature;

pub use grad_cache::grad_cache_backward;
pub use info_nce::{
    InfoNceOptions, hard_negative_info_nce, info_nce, info_nce_per_row, soft_target_info_nce, supervised_contrastive,
};
pub use pairwise::{sigmoid_loss, triplet_loss};
pub use robust::{RobustConfig, RobustKind, clean_probability, small_loss_info_nce, soft_label_info_nce};
pub use self_supervised::{barlow_twins, cyclip_consistency, vicreg};
pub use similarity::Similarity;
pub use temperature::Temperature;

use crate::{Result, checks::invalid};
use mm_core::{Init, Scope, Tensor, no_grad};
use serde::{Deserialize, Serialize};

/// The loss function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContrastiveKind {
    /// Softmax over the batch ([`info_nce()`]).
    #[default]
    InfoNce,
    /// Binary classification of every pair ([`sigmoid_loss`]).
    Sigmoid,
    /// Margin to the hardest negative ([`triplet_loss`]).
    Triplet,
}

/// Settings of a [`ContrastiveLoss`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveConfig {
    /// The loss function.
    pub kind: ContrastiveKind,
    /// Initial temperature, at least 0.01; it is learned, and never falls below 0.01.
    pub temperature: f64,
    /// Label smoothing in [0, 1), for `info_nce`.
    pub label_smoothing: f64,
    /// Margin, for `triplet`.
    pub margin: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { kind: ContrastiveKind::InfoNce, temperature: 0.07, label_smoothing: 0.0, margin: 0.2 }
    }
}

/// The limit of CLIP: a lower temperature makes training unstable.
const MIN_TEMPERATURE: f64 = 0.01;

/// A contrastive loss with a learned temperature.
pub struct ContrastiveLoss {
    config: ContrastiveConfig,
    log_scale: Tensor,
    bias: Option<Tensor>,
}

impl ContrastiveLoss {
    /// Creates the loss with its parameters `logit_scale` (a logarithm, as in CLIP) and, for `sigmoid`, `logit_bias`
    /// under `scope`.
    ///
    /// # Errors
    /// When the temperature is below 0.01 or infinite, or the label smoothing is outside [0, 1).
    pub fn new(scope: &Scope<'_>, config: &ContrastiveConfig) -> Result<Self> {
        if !(config.temperature >= MIN_TEMPERATURE && config.temperature.is_finite()) {
            return Err(invalid("loss.temperature", config.temperature.to_string(), "a number of at least 0.01"));
        }
        if !(0.0..1.0).contains(&config.label_smoothing) {
            return Err(invalid("loss.label_smoothing", config.label_smoothing.to_string(), "a number in [0, 1)"));
        }
        let bias =
            (config.kind == ContrastiveKind::Sigmoid).then(|| scope.param("logit_bias", &[1], Init::Constant(-10.0)));
        Ok(Self {
            log_scale: scope.param("logit_scale", &[1], Init::Constant((1.0 / config.temperature).ln()))?,
            bias: bias.transpose()?,
            config: config.clone(),
        })
    }

    /// Loss of paired embeddings `a` and `b`, `[rows, dim]` each; `false_negatives` as in [`InfoNceOptions`].
    ///
    /// # Errors
    /// When the shapes do not fit together or there is no row.
    pub fn forward(&self, a: &Tensor, b: &Tensor, false_negatives: Option<&Tensor>) -> Result<Tensor> {
        self.forward_similarity(&Similarity::cosine(a, b)?, false_negatives)
    }

    /// Loss of a similarity matrix; `false_negatives` as in [`InfoNceOptions`].
    ///
    /// # Errors
    /// When the shapes do not fit together.
    pub fn forward_similarity(&self, similarity: &Similarity, false_negatives: Option<&Tensor>) -> Result<Tensor> {
        let scale = self.scale()?;
        let temperature = Temperature::Inverse(&scale);
        match (self.config.kind, &self.bias) {
            (ContrastiveKind::Triplet, _) => triplet_loss(similarity, self.config.margin, false_negatives),
            (ContrastiveKind::Sigmoid, Some(bias)) => sigmoid_loss(similarity, temperature, bias, false_negatives),
            _ => {
                let label_smoothing = self.config.label_smoothing;
                info_nce(similarity, temperature, InfoNceOptions { false_negatives, label_smoothing })
            }
        }
    }

    /// [`soft_target_info_nce`] of paired embeddings at the current temperature, regardless of the configured kind;
    /// `target` is `[rows, rows]`.
    ///
    /// # Errors
    /// When the shapes do not fit together or there is no row.
    pub fn forward_soft_targets(&self, a: &Tensor, b: &Tensor, target: &Tensor) -> Result<Tensor> {
        soft_target_info_nce(&Similarity::cosine(a, b)?, Temperature::Inverse(&self.scale()?), target)
    }

    /// `InfoNCE` that is robust to noisy pairs, at the current temperature. `step` counts the steps since the start of
    /// training; until `warmup_steps` the result is that of [`ContrastiveLoss::forward`].
    ///
    /// # Errors
    /// When the shapes do not fit together or there is no row.
    pub fn forward_robust(
        &self,
        a: &Tensor,
        b: &Tensor,
        false_negatives: Option<&Tensor>,
        robust: &RobustConfig,
        step: u64,
    ) -> Result<Tensor> {
        if step < robust.warmup_steps {
            return self.forward(a, b, false_negatives);
        }
        let (similarity, scale) = (Similarity::cosine(a, b)?, self.scale()?);
        let temperature = Temperature::Inverse(&scale);
        match robust.kind {
            RobustKind::SmallLoss => {
                let ramp = ((step - robust.warmup_steps + 1) as f64 / robust.warmup_steps.max(1) as f64).min(1.0);
                small_loss_info_nce(&similarity, temperature, false_negatives, 1.0 - robust.noise_rate * ramp)
            }
            RobustKind::SoftLabels => soft_label_info_nce(&similarity, temperature, false_negatives),
        }
    }

    fn scale(&self) -> Result<Tensor> {
        self.limit()?;
        Ok(self.log_scale.exp()?)
    }

    /// Clamps the parameter at its limit without recording it: its gradient is not cut off, so it can move back.
    fn limit(&self) -> Result<()> {
        no_grad(|| Ok(self.log_scale.copy_(&self.log_scale.clamp_max((1.0 / MIN_TEMPERATURE).ln())?)?))
    }

    /// The current temperature.
    pub fn temperature(&self) -> Result<f64> {
        self.limit()?;
        Ok((-self.log_scale.to_f64()?).exp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device};
    use proptest::prelude::*;

    fn tensor(values: &[f32], rows: i64) -> Tensor {
        Tensor::from_vec(values, &[rows, values.len() as i64 / rows]).unwrap()
    }

    fn scale(value: f32) -> Tensor {
        Tensor::from_slice(&[value]).unwrap()
    }

    #[test]
    fn losses_of_two_orthogonal_pairs_match_a_hand_calculation() {
        let a = tensor(&[1.0, 0.0, 0.0, 1.0], 2);
        let similarity = Similarity::cosine(&a, &a).unwrap();
        let expected = (1.0 + (-3f64).exp()).ln();
        let found = info_nce(&similarity, 1.0 / 3.0, InfoNceOptions::default()).unwrap().to_f64().unwrap();
        assert!((found - expected).abs() < 1e-6);
        // Smoothing by s moves s/2 of the target to the wrong column: the loss grows by s/2 · 3.
        let smooth =
            info_nce(&similarity, 1.0 / 3.0, InfoNceOptions { label_smoothing: 0.2, ..InfoNceOptions::default() })
                .unwrap()
                .to_f64()
                .unwrap();
        assert!((smooth - (expected + 0.3)).abs() < 1e-5, "{smooth}");
        let sigmoid = sigmoid_loss(&similarity, 1.0 / 3.0, &scale(-1.0), None).unwrap().to_f64().unwrap();
        let expected = (1.0 + (-2f64).exp()).ln() + (1.0 + (-1f64).exp()).ln();
        assert!((sigmoid - expected).abs() < 1e-6);
        assert!((triplet_loss(&similarity, 1.5, None).unwrap().to_f64().unwrap() - 1.0).abs() < 1e-6);
        // With all rows marked the same, no negative is left.
        let false_negatives = Tensor::ones(&[2, 2], DType::Bool, Device::Cpu).unwrap();
        assert!(
            info_nce(
                &similarity,
                1.0 / 3.0,
                InfoNceOptions { false_negatives: Some(&false_negatives), ..InfoNceOptions::default() }
            )
            .unwrap()
            .to_f64()
            .unwrap()
            .abs()
                < 1e-6
        );
        assert!(Similarity::cosine(&a, &tensor(&[1.0, 0.0], 1)).is_err());
    }

    #[test]
    fn the_temperature_is_limited_outside_the_graph() {
        let loss = |temperature: f64| {
            let params = mm_core::Params::new(Device::Cpu);
            let config = ContrastiveConfig { temperature, ..ContrastiveConfig::default() };
            ContrastiveLoss::new(&params.scope(), &config)
        };
        let (a, b) = (tensor(&[1.0, 0.0, 0.0, 1.0], 2), tensor(&[0.0, 1.0, 1.0, 0.0], 2));
        let gradient = |loss: &ContrastiveLoss| {
            loss.log_scale.zero_grad();
            loss.forward(&a, &b, None).unwrap().backward().unwrap();
            loss.log_scale.grad().unwrap().to_f64().unwrap()
        };
        // Wrong pairs: a higher temperature lowers the loss, also from a temperature above one.
        let hot = loss(2.0).unwrap();
        assert!((hot.temperature().unwrap() - 2.0).abs() < 1e-6);
        let expected = (1.0 + 0.5f64.exp()).ln();
        assert!((hot.forward(&a, &b, None).unwrap().to_f64().unwrap() - expected).abs() < 1e-6);
        assert!(gradient(&hot) > 0.1);
        // A step beyond the limit is taken back, and the gradient still leads away from it.
        let cold = loss(0.01).unwrap();
        cold.log_scale.copy_(&scale(9.0)).unwrap();
        assert!((cold.temperature().unwrap() - 0.01).abs() < 1e-6);
        cold.log_scale.copy_(&scale(9.0)).unwrap();
        assert!((cold.forward(&a, &b, None).unwrap().to_f64().unwrap() - 100.0).abs() < 1e-3);
        assert!(gradient(&cold) > 50.0);
        assert!(loss(0.009).is_err() && loss(f64::NAN).is_err() && loss(f64::INFINITY).is_err());
    }

    #[test]
    fn false_negatives_are_masked_in_half_precision() {
        let a = tensor(&[1.0, 0.0, 0.0, 1.0, 1.0, 1.0], 3);
        let false_negatives =
            Tensor::from_vec(&[true, true, false, true, true, false, false, false, true], &[3, 3]).unwrap();
        for dtype in [DType::BF16, DType::F16] {
            let half = Similarity::from_scores(Similarity::cosine(&a, &a).unwrap().values().to_dtype(dtype).unwrap());
            let (half, one) = (half.unwrap(), scale(3.0).to_dtype(dtype).unwrap());
            let one = Temperature::Inverse(&one);
            let options = InfoNceOptions { false_negatives: Some(&false_negatives), ..InfoNceOptions::default() };
            for loss in [info_nce(&half, one, options), hard_negative_info_nce(&half, one, 1.0)] {
                assert!(loss.unwrap().to_f64().unwrap().is_finite());
            }
        }
    }

    #[test]
    fn variants_reduce_to_info_nce_at_their_neutral_settings() {
        mm_core::seed::manual_seed(1);
        let randn = || Tensor::randn(&[6, 4], DType::F32, Device::Cpu).unwrap();
        let (a, b) = (randn(), randn());
        let s = Similarity::cosine(&a, &b).unwrap();
        let value = |x: Result<Tensor>| x.unwrap().to_f64().unwrap();
        let plain = value(info_nce(&s, 0.2, InfoNceOptions::default()));
        let eye = Tensor::eye(6, DType::F32, Device::Cpu).unwrap();
        assert!((value(supervised_contrastive(&s, 0.2, &eye.gt_scalar(0.5).unwrap())) - plain).abs() < 1e-5);
        assert!((value(soft_target_info_nce(&s, 0.2, &eye)) - plain).abs() < 1e-5);
        assert!((value(hard_negative_info_nce(&s, 0.2, 0.0)) - plain).abs() < 1e-5);
        assert!(value(hard_negative_info_nce(&s, 0.2, 3.0)) > plain);
        assert!(value(cyclip_consistency(&a, &a)) < 1e-9 && value(cyclip_consistency(&a, &b)) > 0.0);
        // A whitened set compared with itself has no Barlow Twins loss and no VICReg loss.
        let white = tensor(&[1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0], 4);
        assert!(value(barlow_twins(&white, &white, 0.005)) < 1e-6);
        assert!(value(vicreg(&white, &white)) < 1e-6 && value(vicreg(&a, &b)) > 1.0);
    }

    proptest! {
        #[test]
        fn losses_are_invariant_to_row_order_and_norms(values in prop::collection::vec(-1f32..1.0, 40), factor in 0.1f32..5.0) {
            let (a, b) = (tensor(&values[..20], 5), tensor(&values[20..], 5));
            let order = Tensor::from_slice(&[3i64, 0, 4, 1, 2]).unwrap();
            let permute = |t: &Tensor| t.index_select(0, &order).unwrap().mul_scalar(f64::from(factor)).unwrap();
            let all = |a: &Tensor, b: &Tensor| {
                let s = Similarity::cosine(a, b).unwrap();
                let losses = [
                    info_nce(&s, 0.2, InfoNceOptions { label_smoothing: 0.1, ..InfoNceOptions::default() }),
                    sigmoid_loss(&s, 0.2, &scale(-2.0), None),
                    triplet_loss(&s, 0.2, None),
                ];
                losses.map(|l| l.unwrap().to_f64().unwrap())
            };
            for (x, y) in all(&a, &b).into_iter().zip(all(&permute(&a), &permute(&b))) {
                prop_assert!((x - y).abs() < 1e-4);
            }
        }
    }
}
