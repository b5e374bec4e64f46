//! Kernel functions on pairs of rows.

use crate::{
    Result,
    distance::{median_distance, squared_distances},
};
use mm_core::{Tensor, no_grad};

/// A positive-definite kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// `exp(−‖x − y‖² / (2 bandwidth²))`.
    Gaussian {
        /// Standard deviation, in the units of the features.
        bandwidth: f64,
    },
    /// `exp(−‖x − y‖ / bandwidth)`.
    Laplace {
        /// Scale, in the units of the features.
        bandwidth: f64,
    },
    /// `(x·y / dim + 1)^degree`.
    Polynomial {
        /// The exponent.
        degree: f64,
    },
    /// `x·y`.
    Linear,
}

impl Kernel {
    /// Kernel matrix `[n, m]` of `x` `[n, dim]` and `y` `[m, dim]`, differentiable.
    ///
    /// # Errors
    /// When the dimensions differ.
    pub fn matrix(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gaussian { bandwidth } => {
                squared_distances(x, y)?.mul_scalar(-0.5 / (bandwidth * bandwidth))?.exp()?
            }
            Self::Laplace { bandwidth } => {
                squared_distances(x, y)?.add_scalar(1e-12)?.sqrt()?.mul_scalar(-1.0 / bandwidth)?.exp()?
            }
            Self::Polynomial { degree } => {
                let dim = x.size(1)? as f64;
                x.matmul(&y.transpose(0, 1)?)?.mul_scalar(1.0 / dim)?.add_scalar(1.0)?.pow(*degree)?
            }
            Self::Linear => x.matmul(&y.transpose(0, 1)?)?,
        })
    }

    /// Kernel of row i of `x` with row i of `y`, both `[rows, dim]`: `[rows]`, differentiable.
    ///
    /// # Errors
    /// When the shapes differ.
    pub fn rowwise(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let squared = || -> Result<Tensor> { Ok(x.sub(y)?.pow(2.0)?.sum_dim(&[1], false)?) };
        let dot = || -> Result<Tensor> { Ok(x.mul(y)?.sum_dim(&[1], false)?) };
        Ok(match self {
            Self::Gaussian { bandwidth } => squared()?.mul_scalar(-0.5 / (bandwidth * bandwidth))?.exp()?,
            Self::Laplace { bandwidth } => squared()?.add_scalar(1e-12)?.sqrt()?.mul_scalar(-1.0 / bandwidth)?.exp()?,
            Self::Polynomial { degree } => dot()?.mul_scalar(1.0 / x.size(1)? as f64)?.add_scalar(1.0)?.pow(*degree)?,
            Self::Linear => dot()?,
        })
    }

    /// Kernel matrix `[rows, rows]` of `x` `[rows, dim]` with itself, centered in feature space.
    pub(crate) fn centered(&self, x: &Tensor) -> Result<Tensor> {
        let k = self.matrix(x, x)?;
        let columns = k.mean_dim(&[0], true)?;
        Ok(k.sub(&columns)?.sub(&columns.transpose(0, 1)?)?.add(&columns.mean()?)?)
    }
}

/// Five Gaussian kernels whose bandwidths are the median distance of the pooled rows of `x` `[n, dim]` and `y`
/// `[m, dim]` times ¼, ½, 1, 2 and 4, so that no bandwidth has to be chosen.
///
/// # Errors
/// When the dimensions differ, or there are fewer than two rows.
pub fn median_heuristic_kernels(x: &Tensor, y: &Tensor) -> Result<Vec<Kernel>> {
    let median = no_grad(|| median_distance(&Tensor::cat(&[x, y], 0)?))?;
    Ok([0.25, 0.5, 1.0, 2.0, 4.0].iter().map(|factor| Kernel::Gaussian { bandwidth: factor * median }).collect())
}
