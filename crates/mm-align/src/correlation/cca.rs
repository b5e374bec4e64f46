//! Canonical correlation analysis with a ridge.

use super::{
    Projections,
    linalg::{Centered, covariance, resolve_dim, whitening},
};
use crate::{
    Result,
    checks::{check_paired, invalid},
    method::{Alignment, AlignmentMethod, FitOptions, PairedFeatures},
};
use mm_core::Tensor;

/// Regularized CCA of paired rows `a` `[rows, dim a]` and `b` `[rows, dim b]`. Each ridge is a multiple of its set's
/// mean variance; 0 is plain CCA. Canonical variables have unit variance (of the regularized covariance); `values` are
/// the canonical correlations.
///
/// From *Relations Between Two Sets of Variates* (Hotelling, 1936, <https://doi.org/10.1093/biomet/28.3-4.321>), with
/// the ridge of *Canonical Ridge and Econometrics of Joint Production* (Vinod, 1976,
/// <https://doi.org/10.1016/0304-4076(76)90010-5>).
///
/// ```
/// use mm_align::correlation::cca;
/// use mm_core::{DType, Device, Tensor};
/// # fn main() -> mm_align::Result<()> {
/// let a = Tensor::randn(&[100, 8], DType::F32, Device::Cpu)?;
/// let b = a.narrow(1, 0, 4)?.add(&Tensor::randn(&[100, 4], DType::F32, Device::Cpu)?)?;
/// let fit = cca(&a, &b, Some(2), [0.1, 0.1])?;
/// assert_eq!(fit.project(0, &a)?.shape(), [100, 2]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the sets are not paired or not finite, a ridge is negative, a set is constant, or `dim` exceeds the rank.
pub fn cca(a: &Tensor, b: &Tensor, dim: Option<i64>, ridge: [f64; 2]) -> Result<Projections> {
    check_paired("cca", &[a, b])?;
    if ridge.iter().any(|r| r.is_nan() || *r < 0.0) {
        return Err(invalid("cca", format!("ridges {ridge:?}"), "numbers of at least 0"));
    }
    let (a, b) = (Centered::new(a)?, Centered::new(b)?);
    let rows = (a.x.size(0)? - 1) as f64;
    let (wa, wb) = (whitening(&covariance(&a.x, ridge[0])?)?, whitening(&covariance(&b.x, ridge[1])?)?);
    let cross = a.x.transpose(0, 1)?.matmul(&b.x)?.mul_scalar(1.0 / rows)?; // [dim a, dim b]
    let (u, s, vt) = wa.transpose(0, 1)?.matmul(&cross)?.matmul(&wb)?.svd()?;
    let dim = resolve_dim(dim, s.size(0)?)?;
    let left = wa.matmul(&u.narrow(1, 0, dim)?)?;
    let right = wb.matmul(&vt.narrow(0, 0, dim)?.transpose(0, 1)?)?;
    Ok(Projections { sets: vec![(a.mean, left), (b.mean, right)], values: s.narrow(0, 0, dim)? })
}

/// The method `cca`: [`cca`] with the regularization as both ridges; each dimension is weighted by its correlation.
pub struct Cca;

impl AlignmentMethod for Cca {
    fn name(&self) -> &'static str {
        "cca"
    }

    fn description(&self) -> &'static str {
        "canonical correlation analysis with a ridge (Hotelling 1936, Vinod 1976)"
    }

    fn regularization_grid(&self) -> &[f64] {
        &[1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        // Canonical variables that correlate more should count more in a cosine.
        let fit = cca(&pairs.a, &pairs.b, options.dim, [options.regularization; 2])?.scale_by_values(1.0)?;
        fit.into_alignment()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            gcca,
            testing::{correlated_pair, randn, values},
        },
        *,
    };
    use mm_core::{DType, Device, seed::manual_seed};
    use proptest::prelude::*;

    #[test]
    fn canonical_variables_have_unit_variance_and_the_reported_correlations() {
        manual_seed(1);
        let (a, b) = correlated_pair(200);
        let fit = cca(&a, &b, None, [0.0; 2]).unwrap();
        let (x, y) = (fit.project(0, &a).unwrap(), fit.project(1, &b).unwrap());
        let cross = values(&x.transpose(0, 1).unwrap().matmul(&y).unwrap().mul_scalar(1.0 / 199.0).unwrap());
        let own = values(&x.transpose(0, 1).unwrap().matmul(&x).unwrap().mul_scalar(1.0 / 199.0).unwrap());
        let correlations = values(&fit.values);
        for i in 0..4 {
            for j in 0..4 {
                let (want_cross, want_own) = if i == j { (correlations[i], 1.0) } else { (0.0, 0.0) };
                assert!((cross[i * 4 + j] - want_cross).abs() < 1e-8 && (own[i * 4 + j] - want_own).abs() < 1e-8);
            }
        }
        assert!(correlations[0] > 0.9 && correlations[3] < 0.5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn correlations_are_invariant_to_invertible_maps(seed in 0u64..1000) {
            manual_seed(seed);
            let (a, b) = correlated_pair(60);
            // Far from singular: a map that loses a direction to rounding keeps no correlation.
            let map = (&Tensor::eye(5, DType::F64, Device::Cpu).unwrap().mul_scalar(4.0).unwrap() + &randn(&[5, 5])).unwrap();
            let mapped = a.matmul(&map).unwrap().add_scalar(3.0).unwrap();
            let (x, y) = (cca(&a, &b, None, [0.0; 2]).unwrap(), cca(&mapped, &b, None, [0.0; 2]).unwrap());
            for (p, q) in values(&x.values).iter().zip(values(&y.values)) {
                prop_assert!((p - q).abs() < 1e-6);
            }
            // For two sets the eigenvalues of MAXVAR GCCA are one plus the correlations.
            let both = gcca(&[&a, &b], Some(3), 0.0).unwrap();
            for (p, q) in values(&x.values).iter().zip(values(&both.values)) {
                prop_assert!((1.0 + p - q).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn degenerate_columns_are_dropped_and_invalid_sets_are_errors() {
        manual_seed(4);
        let (a, b) = correlated_pair(30);
        // A constant column, a repeated column, fewer rows than columns: directions without variance are dropped.
        let constant = Tensor::cat(
            &[&a, &Tensor::ones(&[30, 1], DType::F64, Device::Cpu).unwrap(), &a.narrow(1, 0, 1).unwrap()],
            1,
        )
        .unwrap();
        let (x, y) = (cca(&a, &b, None, [0.0; 2]).unwrap(), cca(&constant, &b, None, [0.0; 2]).unwrap());
        assert!(values(&x.values).iter().zip(values(&y.values)).all(|(p, q)| (p - q).abs() < 1e-6));
        assert!(cca(&randn(&[5, 9]), &randn(&[5, 7]), None, [0.1; 2]).is_ok());
        let text = |r: Result<Projections>| r.unwrap_err().to_string();
        assert!(text(cca(&a, &b, Some(5), [0.0; 2])).contains("1 to 4"));
        assert!(text(cca(&a, &randn(&[29, 3]), None, [0.0; 2])).contains("[29, 3]"));
        assert!(text(cca(&randn(&[1, 3]), &randn(&[1, 3]), None, [0.0; 2])).contains("at least two"));
        assert!(
            text(cca(&Tensor::ones(&[9, 2], DType::F64, Device::Cpu).unwrap(), &randn(&[9, 2]), None, [0.0; 2]))
                .contains("constant")
        );
        let with_nan = a
            .masked_fill(&Tensor::eye(30, DType::Bool, Device::Cpu).unwrap().narrow(1, 7, 5).unwrap(), f64::NAN)
            .unwrap();
        assert!(text(cca(&b, &with_nan, None, [0.0; 2])).contains("set b, row 7, column 0"));
    }
}
