//! Gaussians with diagonal covariance, and importance-weighted bounds on the likelihood.

use mm_core::{Result, Tensor, distributed::randn_rows};

/// ln 2π.
const LN_2PI: f64 = 1.837_877_066_409_345_5;

/// One Gaussian per row with diagonal covariance.
#[derive(Debug, Clone)]
pub(crate) struct DiagonalGaussian {
    /// `[rows, dim]`.
    pub(crate) mean: Tensor,
    /// Logarithm of the variance, `[rows, dim]`.
    pub(crate) log_var: Tensor,
}

impl DiagonalGaussian {
    /// From `[rows, 2 · dim]`: means, then log-variances, which are clamped to ±10.
    pub(crate) fn from_params(params: &Tensor) -> Result<Self> {
        let dim = params.size(1)? / 2;
        let log_var = params.narrow(1, dim, dim)?.clamp(-10.0, 10.0)?;
        Ok(Self { mean: params.narrow(1, 0, dim)?, log_var })
    }

    /// A sample `[rows, dim]` by reparameterization, μ + σ ε.
    pub(crate) fn rsample(&self) -> Result<Tensor> {
        let noise = randn_rows(&self.mean.shape(), self.mean.device())?;
        self.mean.add(&self.log_var.mul_scalar(0.5)?.exp()?.mul(&noise)?)
    }

    /// KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² − ln σ² − 1) of each dimension, `[rows, dim]`, in nats.
    pub(crate) fn kl_from_standard_normal(&self) -> Result<Tensor> {
        let second_moment = self.mean.mul(&self.mean)?.add(&self.log_var.exp()?)?;
        second_moment.sub(&self.log_var)?.add_scalar(-1.0)?.mul_scalar(0.5)
    }

    /// ln N(z; μ, σ²) of `z` `[rows, dim]`, `[rows]`.
    pub(crate) fn log_prob(&self, z: &Tensor) -> Result<Tensor> {
        let difference = z.sub(&self.mean)?;
        let scaled = difference.mul(&difference)?.mul(&self.log_var.neg()?.exp()?)?.add(&self.log_var)?;
        scaled.add_scalar(LN_2PI)?.sum_dim(&[1], false)?.mul_scalar(-0.5)
    }
}

/// ln N(z; 0, I) of `z` `[rows, dim]`, `[rows]`.
pub(crate) fn standard_normal_log_prob(z: &Tensor) -> Result<Tensor> {
    z.mul(z)?.add_scalar(LN_2PI)?.sum_dim(&[1], false)?.mul_scalar(-0.5)
}

/// ln (1/K Σₖ wₖ) of `samples` importance weights wₖ, each given by its logarithm `[rows]`. *Importance Weighted
/// Autoencoders* ([Burda et al., 2016](https://arxiv.org/abs/1509.00519)).
pub(crate) fn importance_weighted_bound(
    samples: usize,
    mut log_weight: impl FnMut() -> Result<Tensor>,
) -> Result<Tensor> {
    let samples = samples.max(1);
    let log_weights: Vec<Tensor> = (0..samples).map(|_| log_weight()).collect::<Result<_>>()?;
    let stacked = Tensor::stack(&log_weights.iter().collect::<Vec<_>>(), 0)?; // [samples, rows]
    stacked.logsumexp(0)?.add_scalar(-(samples as f64).ln())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: [f32; 2]) -> Tensor {
        Tensor::from_vec(&values, &[1, 2]).unwrap()
    }

    #[test]
    fn kl_and_log_prob_match_the_closed_forms() {
        let q = DiagonalGaussian { mean: row([1.0, -0.5]), log_var: row([0.3, -0.2]) };
        let kl: f64 = [(1.0f64, 0.3f64), (-0.5, -0.2)].iter().map(|(m, l)| 0.5 * (m * m + l.exp() - l - 1.0)).sum();
        let found = q.kl_from_standard_normal().unwrap().sum().unwrap().to_f64().unwrap();
        assert!((found - kl).abs() < 1e-6);
        let log_prob: f64 = [(1.0f64, 0.3f64, 0.2f64), (-0.5, -0.2, 0.1)]
            .iter()
            .map(|(m, l, z)| -0.5 * ((2.0 * std::f64::consts::PI).ln() + l + (z - m).powi(2) / l.exp()))
            .sum();
        let found = q.log_prob(&row([0.2, 0.1])).unwrap().to_f64().unwrap();
        assert!((found - log_prob).abs() < 1e-5);
        let standard = DiagonalGaussian { mean: row([0.0; 2]), log_var: row([0.0; 2]) };
        let z = row([0.7, -1.1]);
        let difference = standard.log_prob(&z).unwrap().sub(&standard_normal_log_prob(&z).unwrap()).unwrap();
        assert!(difference.abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-6);
    }
}
