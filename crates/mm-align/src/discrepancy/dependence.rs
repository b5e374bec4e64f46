//! Dependence of paired rows: HSIC and CKA.

use crate::{
    Result,
    checks::{center, check_paired},
    kernel::Kernel,
};
use mm_core::Tensor;

/// Hilbert–Schmidt independence criterion (HSIC) of paired rows `x` `[rows, dim x]` and `y` `[rows, dim y]`: the biased
/// estimator, divided by `(rows − 1)²`. 0 when they are independent.
///
/// From *Measuring Statistical Dependence with Hilbert-Schmidt Norms* (Gretton et al., 2005,
/// <https://doi.org/10.1007/11564089_7>).
///
/// # Errors
/// When the sets are not paired or not finite.
pub fn hsic(x: &Tensor, y: &Tensor, kernels: [Kernel; 2]) -> Result<Tensor> {
    check_paired("hsic", &[x, y])?;
    let rows = (x.size(0)? - 1) as f64;
    let product = kernels[0].centered(x)?.mul(&kernels[1].centered(y)?)?;
    Ok(product.sum()?.mul_scalar(1.0 / (rows * rows))?)
}

/// Linear centered kernel alignment of two representations of the same rows, `x` `[rows, dim x]` and `y` `[rows, dim
/// y]`: 1 when they are equal up to rotation and isotropic scale.
///
/// From *Similarity of Neural Network Representations Revisited* (Kornblith et al., 2019,
/// <https://arxiv.org/abs/1905.00414>).
///
/// # Errors
/// When the sets are not paired or not finite.
pub fn cka(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check_paired("cka", &[x, y])?;
    let (x, y) = (center(x)?, center(y)?);
    // ‖YᵀX‖² instead of kernel matrices: there are usually fewer dimensions than rows.
    let cross = |a: &Tensor, b: &Tensor| a.transpose(0, 1)?.matmul(b)?.pow(2.0)?.sum();
    Ok(cross(&x, &y)?.div(&cross(&x, &x)?.mul(&cross(&y, &y)?)?.add_scalar(1e-24)?.sqrt()?)?)
}
