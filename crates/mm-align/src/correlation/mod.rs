//! Projections of two or more feature sets into a shared space by their correlations, computed in float64.

mod cca;
mod deep_cca;
mod gcca;
mod kernel_cca;
mod linalg;
mod pls;
mod projections;

pub use cca::{Cca, cca};
pub use deep_cca::deep_cca_loss;
pub use gcca::{ThreeViewCca, gcca};
pub use kernel_cca::{KernelCca, KernelProjection, KernelProjections, kernel_cca};
pub use pls::{Pls, pls};
pub use projections::Projections;

#[cfg(test)]
mod testing {
    use mm_core::{DType, Device, Tensor};

    pub(super) fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F64, Device::Cpu).unwrap()
    }

    pub(super) fn values(x: &Tensor) -> Vec<f64> {
        x.to_vec().unwrap()
    }

    /// Two sets `[rows, 5]` and `[rows, 4]` that share two latent variables.
    pub(super) fn correlated_pair(rows: i64) -> (Tensor, Tensor) {
        let latent = randn(&[rows, 2]);
        let noisy = |dim: i64| {
            latent.matmul(&randn(&[2, dim])).unwrap().add(&randn(&[rows, dim]).mul_scalar(0.5).unwrap()).unwrap()
        };
        (noisy(5), noisy(4))
    }
}
