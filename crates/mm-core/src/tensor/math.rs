//! Operations with several results: splitting, sorting and decompositions.

use super::{Tensor, torch_error, wrap};
use crate::Result;

impl Tensor {
    /// Splits a dimension into parts of these sizes.
    pub fn split(&self, sizes: &[i64], dim: i64) -> Result<Vec<Self>> {
        match self.0.f_split_with_sizes(sizes, dim) {
            Ok(parts) => Ok(parts.into_iter().map(Self::from_tch).collect()),
            Err(error) => Err(torch_error("split", &[self], &error)),
        }
    }

    /// The `k` largest values along the last dimension in descending order, and their indices.
    pub fn topk(&self, k: i64) -> Result<(Self, Self)> {
        match self.0.f_topk(k, -1, true, true) {
            Ok((values, indices)) => Ok((Self::from_tch(values), Self::from_tch(indices))),
            Err(error) => Err(torch_error("topk", &[self], &error)),
        }
    }

    /// Thin singular value decomposition `U · diag(S) · Vᵀ`: (U, S, Vᵀ).
    pub fn svd(&self) -> Result<(Self, Self, Self)> {
        // `linalg_svd` requires the name of a driver, which the CPU rejects; `svd` returns V instead of Vᵀ.
        match self.0.f_svd(true, true).and_then(|(u, s, v)| Ok((u, s, v.f_transpose(0, 1)?))) {
            Ok((u, s, v)) => Ok((Self::from_tch(u), Self::from_tch(s), Self::from_tch(v))),
            Err(error) => Err(torch_error("svd", &[self], &error)),
        }
    }

    /// Eigenvalues in ascending order and eigenvectors (columns) of a symmetric matrix.
    pub fn eigh(&self) -> Result<(Self, Self)> {
        match self.0.f_linalg_eigh("L") {
            Ok((values, vectors)) => Ok((Self::from_tch(values), Self::from_tch(vectors))),
            Err(error) => Err(torch_error("eigh", &[self], &error)),
        }
    }

    /// The values along a dimension in order, and their indices.
    pub fn sort(&self, dim: i64, descending: bool) -> Result<(Self, Self)> {
        match self.0.f_sort(dim, descending) {
            Ok((values, indices)) => Ok((Self::from_tch(values), Self::from_tch(indices))),
            Err(error) => Err(torch_error("sort", &[self], &error)),
        }
    }

    /// Circular convolution of this length along the last dimension, by the Fourier transform.
    pub fn circular_convolution(&self, other: &Tensor, length: i64) -> Result<Self> {
        let run = || {
            let transform = |t: &tch::Tensor| t.f_fft_rfft(length, -1, "backward");
            transform(&self.0)?.f_mul(&transform(&other.0)?)?.f_fft_irfft(length, -1, "backward")
        };
        wrap("circular_convolution", &[self, other], run())
    }

    /// Scales the last dimension to unit length; a zero row stays zero.
    pub fn normalize(&self) -> Result<Self> {
        self.div(&self.norm(-1, true)?.clamp_min(1e-12)?)
    }
}
