//! Kernel CCA.

use super::linalg::resolve_dim;
use crate::{
    Result,
    checks::{check_paired, invalid, to_f64},
    distance::median_distance,
    kernel::Kernel,
    method::{Alignment, AlignmentMethod, FitOptions, PairedFeatures, Projection, Requirements, Transform},
};
use mm_core::Tensor;

/// The projection of one set: rows are compared with the training rows by a kernel.
#[derive(Debug, Clone)]
pub struct KernelProjection {
    train: Tensor,
    kernel: Kernel,
    map: Tensor,
    /// Column means `[1, training rows]` and overall mean of the training kernel matrix, for centering.
    column_means: Tensor,
    mean: f64,
}

impl KernelProjection {
    /// Projects features `[rows, dim of the set]` to `[rows, dim]`, float64.
    pub fn project(&self, x: &Tensor) -> Result<Tensor> {
        let k = self.kernel.matrix(&to_f64(x)?, &self.train)?; // [rows, training rows]
        let centered = k.sub(&k.mean_dim(&[1], true)?)?.sub(&self.column_means)?.add_scalar(self.mean)?;
        Ok(centered.matmul(&self.map)?)
    }
}

impl Transform for KernelProjection {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        self.project(x)
    }
}

/// A fitted kernel CCA.
#[derive(Debug, Clone)]
pub struct KernelProjections {
    /// Projection of each set.
    pub sets: [KernelProjection; 2],
    /// Canonical correlations, largest first, `[dim]`.
    pub values: Tensor,
}

impl KernelProjections {
    /// Keeps the first `dim` dimensions (all where there are fewer).
    pub fn truncate(mut self, dim: i64) -> Result<Self> {
        let dim = dim.clamp(1, self.values.size(0)?);
        for set in &mut self.sets {
            set.map = set.map.narrow(1, 0, dim)?;
        }
        self.values = self.values.narrow(0, 0, dim)?;
        Ok(self)
    }
}

/// Centered kernel matrix of a training set, with the means by which new rows are centered.
struct TrainingKernel {
    x: Tensor,
    k: Tensor,
    column_means: Tensor,
    mean: f64,
}

impl TrainingKernel {
    fn new(x: &Tensor, kernel: Kernel) -> Result<Self> {
        let x = to_f64(x)?;
        let k = kernel.matrix(&x, &x)?;
        let column_means = k.mean_dim(&[0], true)?;
        let mean = column_means.mean()?.to_f64()?;
        let k = k.sub(&column_means)?.sub(&column_means.transpose(0, 1)?)?.add_scalar(mean)?;
        Ok(Self { x, k, column_means, mean })
    }

    /// Positive eigenvalues `[rank]` and their eigenvectors `[rows, rank]`.
    fn eigh(&self) -> Result<(Tensor, Tensor)> {
        let rows = self.k.size(0)?;
        let (values, vectors) = self.k.eigh()?;
        let all = values.to_vec::<f64>()?;
        let largest = all.last().copied().unwrap_or(0.0);
        let rank = all.iter().filter(|v| **v > largest * 1e-9 && **v > 0.0).count() as i64;
        if rank == 0 {
            return Err(invalid("kernel_cca", "a set in which all rows are equal", "rows that differ"));
        }
        Ok((values.narrow(0, rows - rank, rank)?, vectors.narrow(1, rows - rank, rank)?))
    }
}

/// Kernel CCA of paired rows. `ridge` is a multiple of each kernel's mean eigenvalue and must be positive: without it
/// any two sets are perfectly correlated. Memory grows with the square of the rows, time with the cube.
///
/// From *Canonical Correlation Analysis: An Overview with Application to Learning Methods* (Hardoon, Szedmak and
/// Shawe-Taylor, 2004, <https://doi.org/10.1162/0899766042321814>).
///
/// # Errors
/// When the sets are not paired or not finite, the ridge is not positive, or `dim` exceeds the rank.
pub fn kernel_cca(
    a: &Tensor,
    b: &Tensor,
    kernels: [Kernel; 2],
    dim: Option<i64>,
    ridge: f64,
) -> Result<KernelProjections> {
    let rows = check_paired("kernel_cca", &[a, b])?;
    if ridge.is_nan() || ridge <= 0.0 {
        return Err(invalid("kernel_cca", format!("ridge {ridge}"), "a positive number"));
    }
    let (ka, kb) = (TrainingKernel::new(a, kernels[0])?, TrainingKernel::new(b, kernels[1])?);
    let ((sa, ua), (sb, ub)) = (ka.eigh()?, kb.eigh()?);
    // s / √(s² + λ s): a ridge on the eigenvalues is a ridge in feature space.
    let shrink = |s: &Tensor| -> Result<Tensor> {
        let lambda = ridge * s.sum()?.to_f64()? / rows as f64;
        Ok(s.div(&s.mul(s)?.add(&s.mul_scalar(lambda)?)?.sqrt()?)?)
    };
    let (ga, gb) = (shrink(&sa)?, shrink(&sb)?);
    let inner = ua.transpose(0, 1)?.matmul(&ub)?.mul(&gb)?.mul(&ga.unsqueeze(1)?)?;
    let (u, s, vt) = inner.svd()?;
    let dim = resolve_dim(dim, s.size(0)?)?;
    // The projection of a row is its kernel row · U · diag(g / s) · u.
    let map = |vectors: &Tensor, g: &Tensor, s: &Tensor, directions: &Tensor| -> Result<Tensor> {
        Ok(vectors.mul(&g.div(s)?)?.matmul(directions)?.mul_scalar((rows as f64).sqrt())?)
    };
    let left = map(&ua, &ga, &sa, &u.narrow(1, 0, dim)?)?;
    let right = map(&ub, &gb, &sb, &vt.narrow(0, 0, dim)?.transpose(0, 1)?)?;
    let set = |k: TrainingKernel, kernel: Kernel, map: Tensor| KernelProjection {
        train: k.x,
        kernel,
        map,
        column_means: k.column_means,
        mean: k.mean,
    };
    Ok(KernelProjections {
        sets: [set(ka, kernels[0], left), set(kb, kernels[1], right)],
        values: s.narrow(0, 0, dim)?,
    })
}

/// The method `kernel_cca`: [`kernel_cca`] with Gaussian kernels of the median distance, truncated to 128 dimensions.
pub struct KernelCca;

impl AlignmentMethod for KernelCca {
    fn name(&self) -> &'static str {
        "kernel_cca"
    }

    fn description(&self) -> &'static str {
        "kernel CCA with Gaussian kernels of the median distance (Hardoon et al. 2004)"
    }

    fn requirements(&self) -> Requirements {
        Requirements { max_search_rows: Some(3000), ..Requirements::default() }
    }

    fn regularization_grid(&self) -> &[f64] {
        &[0.1, 1.0, 10.0, 100.0]
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let kernel = |x: &Tensor| -> Result<Kernel> { Ok(Kernel::Gaussian { bandwidth: median_distance(x)? }) };
        let kernels = [kernel(&pairs.a)?, kernel(&pairs.b)?];
        let fit = kernel_cca(&pairs.a, &pairs.b, kernels, options.dim, options.regularization)?.truncate(128)?;
        let dim = fit.values.size(0)?;
        let [a, b] = fit.sets;
        Ok(Alignment::new(Projection::new(a), Projection::new(b), dim))
    }
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
    fn a_linear_kernel_is_linear_cca_for_training_rows() {
        manual_seed(3);
        let (a, b) = correlated_pair(80);
        let kernel = kernel_cca(&a, &b, [Kernel::Linear; 2], Some(3), 1e-9).unwrap();
        let plain = cca(&a, &b, Some(3), [0.0; 2]).unwrap();
        for (p, q) in values(&kernel.values).iter().zip(values(&plain.values)) {
            assert!((p - q).abs() < 1e-4, "{p} {q}");
        }
        let (x, y) = (kernel.sets[0].project(&a).unwrap(), plain.project(0, &a).unwrap());
        let correlation = |i: i64| {
            let (u, v) = (x.select(1, i).unwrap(), y.select(1, i).unwrap());
            let dot = u.mul(&v).unwrap().sum().unwrap().to_f64().unwrap();
            dot / (u.norm_all().unwrap().to_f64().unwrap() * v.norm_all().unwrap().to_f64().unwrap())
        };
        assert!((0..3).all(|i| correlation(i).abs() > 0.999));
    }
}
