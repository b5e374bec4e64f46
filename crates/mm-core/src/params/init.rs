//! Initial values of parameters.

use crate::{DType, Device, Result, Tensor};

/// Distribution that a new parameter is sampled from, with libtorch's seeded generator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones.
    Ones,
    /// One value.
    Constant(f64),
    /// Normal with mean zero and this standard deviation.
    Normal(f64),
    /// Uniform in ±bound.
    Uniform(f64),
}

impl Init {
    pub(crate) fn tensor(self, shape: &[i64], dtype: DType, device: Device) -> Result<Tensor> {
        match self {
            Self::Zeros => Tensor::zeros(shape, dtype, device),
            Self::Ones => Tensor::ones(shape, dtype, device),
            Self::Constant(value) => Tensor::full(shape, value, dtype, device),
            Self::Normal(std) => Tensor::randn(shape, dtype, device)?.mul_scalar(std),
            Self::Uniform(bound) => Tensor::rand(shape, dtype, device)?.mul_scalar(2.0 * bound)?.add_scalar(-bound),
        }
    }
}
