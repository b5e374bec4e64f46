//! Ridge regression from one modality onto the other.

use crate::{
    Result,
    checks::check_paired,
    method::{Alignment, AlignmentMethod, FitOptions, PairedFeatures, Projection},
};
use mm_core::{DType, Tensor};

/// The method `ridge`: the first modality is mapped onto the second by ridge regression; the shared space is that of
/// the second modality, centered. The regularization is a multiple of the first set's mean squared column.
pub struct RidgeRegression;

impl AlignmentMethod for RidgeRegression {
    fn name(&self) -> &'static str {
        "ridge"
    }

    fn description(&self) -> &'static str {
        "the first modality mapped onto the second by ridge regression"
    }

    fn regularization_grid(&self) -> &[f64] {
        &[1e-4, 1e-2, 0.1, 1.0, 10.0]
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let (a, b) = (&pairs.a, &pairs.b);
        check_paired("ridge", &[a, b])?;
        let (mean_a, mean_b) = (a.mean_dim(&[0], true)?, b.mean_dim(&[0], true)?);
        let (x, y) = (a.sub(&mean_a)?, b.sub(&mean_b)?);
        let transposed = x.transpose(0, 1)?;
        let gram = transposed.matmul(&x)?;
        let mean_square = gram.diagonal()?.mean()?.to_f64()?.max(1e-12);
        let ridge = options.regularization.max(1e-9) * mean_square;
        let eye = Tensor::eye(x.size(1)?, DType::F64, x.device())?.mul_scalar(ridge)?;
        let map = gram.add(&eye)?.solve(&transposed.matmul(&y)?)?;
        let dim = b.size(1)?;
        let identity = Tensor::eye(dim, DType::F64, b.device())?;
        Ok(Alignment::new(Projection::affine(mean_a, map), Projection::affine(mean_b, identity), dim))
    }
}
