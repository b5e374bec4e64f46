//! Deep CCA: canonical correlation as a loss.

use crate::{
    Result,
    checks::{center, invalid},
};
use mm_core::Tensor;

/// Minus the sum of the canonical correlations of a batch `a` `[rows, dim]`, `b` `[rows, dim]`, differentiable. `ridge`
/// is added to the diagonal of each covariance. Batches should have several times as many rows as dimensions.
///
/// From *Deep Canonical Correlation Analysis* (Andrew et al., 2013, <https://proceedings.mlr.press/v28/andrew13.html>).
///
/// # Errors
/// When the batches have different numbers of rows, or fewer than two.
pub fn deep_cca_loss(a: &Tensor, b: &Tensor, ridge: f64) -> Result<Tensor> {
    if a.rank() != 2 || a.size(0)? != b.size(0)? || a.size(0)? < 2 {
        let found = format!("{:?} and {:?}", a.shape(), b.shape());
        return Err(invalid("deep_cca_loss", found, "two batches [rows, dim] with the same number of rows"));
    }
    let rows = (a.size(0)? - 1) as f64;
    let (a, b) = (center(a)?, center(b)?);
    let cholesky = |x: &Tensor| -> Result<Tensor> {
        let dim = x.size(1)?;
        let eye = Tensor::eye(dim, x.dtype()?, x.device())?.mul_scalar(ridge)?;
        Ok(x.transpose(0, 1)?.matmul(x)?.mul_scalar(1.0 / rows)?.add(&eye)?.cholesky()?)
    };
    let (la, lb) = (cholesky(&a)?, cholesky(&b)?);
    let cross = a.transpose(0, 1)?.matmul(&b)?.mul_scalar(1.0 / rows)?;
    // The canonical correlations are the singular values of T = La⁻¹ C Lb⁻ᵀ.
    let half = la.solve_triangular(&cross, false)?; // La⁻¹ C
    let t = lb.solve_triangular(&half.transpose(0, 1)?, false)?; // Tᵀ
    let (_, s, _) = t.svd()?;
    Ok(s.sum()?.neg()?)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            cca,
            testing::{correlated_pair, values},
        },
        *,
    };
    use mm_core::seed::manual_seed;

    #[test]
    fn loss_is_the_negated_sum_of_correlations_and_gradients_match_finite_differences() {
        manual_seed(5);
        let (a, b) = correlated_pair(40);
        let a = a.set_requires_grad(true).unwrap();
        let loss = deep_cca_loss(&a, &b, 0.0).unwrap();
        let sum: f64 = values(&cca(&a, &b, None, [0.0; 2]).unwrap().values).iter().sum();
        assert!((loss.to_f64().unwrap() + sum).abs() < 1e-8);
        loss.backward().unwrap();
        let grad = values(&a.grad().unwrap());
        let base = values(&a);
        for index in [0, 17, 101] {
            let perturbed = |by: f64| {
                let mut values = base.clone();
                values[index] += by;
                let x = Tensor::from_vec(&values, &[40, 5]).unwrap();
                deep_cca_loss(&x, &b, 0.0).unwrap().to_f64().unwrap()
            };
            let numeric = (perturbed(1e-5) - perturbed(-1e-5)) / 2e-5;
            assert!((numeric - grad[index]).abs() < 1e-6, "{numeric} {}", grad[index]);
        }
    }
}
