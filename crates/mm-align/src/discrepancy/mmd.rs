//! Maximum mean discrepancy and its permutation test.

use crate::{
    Result,
    checks::{check_same_dim, invalid},
    kernel::Kernel,
};
use mm_core::{DType, Tensor, no_grad, seed::Rng};

/// Estimator of the squared discrepancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MmdEstimator {
    /// All pairs (V-statistic): never negative, biased upward on few rows.
    #[default]
    Biased,
    /// Without pairs of a row with itself (U-statistic): unbiased, may be negative.
    Unbiased,
    /// Consecutive pairs only: unbiased, linear time, high variance.
    Linear,
}

/// Rows per block of the kernel matrix, which is never built at once.
const BLOCK_ROWS: i64 = 1024;

fn add(sum: Option<Tensor>, value: Tensor) -> Result<Option<Tensor>> {
    Ok(Some(match sum {
        Some(sum) => sum.add(&value)?,
        None => value,
    }))
}

fn no_kernel(what: &'static str) -> crate::Error {
    invalid(what, "no kernel", "at least one")
}

/// Sum of the kernels over all pairs, optionally without the diagonal; memory without gradients is `BLOCK_ROWS × rows`.
fn sum_over_pairs(x: &Tensor, y: &Tensor, kernels: &[Kernel], without_diagonal: bool) -> Result<Tensor> {
    let mut sum = None;
    let rows = x.size(0)?;
    for start in (0..rows).step_by(BLOCK_ROWS as usize) {
        let block = x.narrow(0, start, BLOCK_ROWS.min(rows - start))?;
        for kernel in kernels {
            let mut value = kernel.matrix(&block, y)?;
            if without_diagonal {
                let diagonal = Tensor::eye(rows, DType::Bool, x.device())?.narrow(0, start, block.size(0)?)?;
                value = value.masked_fill(&diagonal, 0.0)?;
            }
            sum = add(sum, value.sum()?)?;
        }
    }
    sum.ok_or_else(|| no_kernel("mmd"))
}

/// Squared maximum mean discrepancy of `x` `[n, dim]` and `y` `[m, dim]` with the mean of the kernels. Computed in
/// blocks of rows, so that memory does not grow with `n · m`.
///
/// From *A Kernel Two-Sample Test* (Gretton et al., 2012, <https://jmlr.org/papers/v13/gretton12a.html>).
///
/// # Errors
/// When the dimensions differ, a set has fewer than two rows or is not finite, or there is no kernel.
pub fn mmd(x: &Tensor, y: &Tensor, kernels: &[Kernel], estimator: MmdEstimator) -> Result<Tensor> {
    check_same_dim("mmd", x, y)?;
    let (m, n) = (x.size(0)? as f64, y.size(0)? as f64);
    let share = 1.0 / kernels.len().max(1) as f64;
    let total = if estimator == MmdEstimator::Linear {
        linear_mmd(x, y, kernels)?
    } else {
        let unbiased = estimator == MmdEstimator::Unbiased;
        let pairs = |count: f64| if unbiased { count * (count - 1.0) } else { count * count };
        let xx = sum_over_pairs(x, x, kernels, unbiased)?.mul_scalar(1.0 / pairs(m))?;
        let yy = sum_over_pairs(y, y, kernels, unbiased)?.mul_scalar(1.0 / pairs(n))?;
        let xy = sum_over_pairs(x, y, kernels, false)?.mul_scalar(2.0 / (m * n))?;
        xx.add(&yy)?.sub(&xy)?
    };
    Ok(total.mul_scalar(share)?)
}

fn linear_mmd(x: &Tensor, y: &Tensor, kernels: &[Kernel]) -> Result<Tensor> {
    let pairs = x.size(0)?.min(y.size(0)?) / 2;
    let every_second = |t: &Tensor, offset: i64| -> Result<Tensor> {
        let rows: Vec<i64> = (0..pairs).map(|p| 2 * p + offset).collect();
        Ok(t.index_select(0, &Tensor::from_slice(&rows)?.to_device(t.device())?)?)
    };
    let (x0, x1, y0, y1) = (every_second(x, 0)?, every_second(x, 1)?, every_second(y, 0)?, every_second(y, 1)?);
    let mut sum = None;
    for kernel in kernels {
        let h = kernel.rowwise(&x0, &x1)?.add(&kernel.rowwise(&y0, &y1)?)?;
        let h = h.sub(&kernel.rowwise(&x0, &y1)?)?.sub(&kernel.rowwise(&x1, &y0)?)?;
        sum = add(sum, h.mean()?)?;
    }
    sum.ok_or_else(|| no_kernel("mmd"))
}

/// Mean over classes of the squared MMD (biased estimator, see [`mmd`]) between the rows of a class in both sets;
/// classes with fewer than two rows in either set are left out.
///
/// # Errors
/// Those of [`mmd`]; also when the numbers of labels and rows differ, or no class has two rows in both sets.
pub fn conditional_mmd(
    x: &Tensor,
    x_labels: &[i64],
    y: &Tensor,
    y_labels: &[i64],
    kernels: &[Kernel],
) -> Result<Tensor> {
    check_same_dim("conditional_mmd", x, y)?;
    if x_labels.len() as i64 != x.size(0)? || y_labels.len() as i64 != y.size(0)? {
        let found = format!("{} and {} labels", x_labels.len(), y_labels.len());
        return Err(invalid("conditional_mmd", found, format!("{} and {}", x.size(0)?, y.size(0)?)));
    }
    let rows_of = |labels: &[i64], class: i64| -> Vec<i64> {
        labels.iter().enumerate().filter(|(_, l)| **l == class).map(|(row, _)| row as i64).collect()
    };
    let mut classes: Vec<i64> = x_labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let (mut sum, mut count) = (None, 0.0);
    for class in classes {
        let (a, b) = (rows_of(x_labels, class), rows_of(y_labels, class));
        if a.len() < 2 || b.len() < 2 {
            continue;
        }
        let pick = |t: &Tensor, rows: &[i64]| -> Result<Tensor> {
            Ok(t.index_select(0, &Tensor::from_slice(rows)?.to_device(t.device())?)?)
        };
        sum = add(sum, mmd(&pick(x, &a)?, &pick(y, &b)?, kernels, MmdEstimator::Biased)?)?;
        count += 1.0;
    }
    match sum {
        Some(sum) => Ok(sum.mul_scalar(1.0 / count)?),
        None => Err(invalid("conditional_mmd", "no class with two rows in both sets", "at least one")),
    }
}

/// The result of a permutation test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PermutationTest {
    /// Statistic of the two sets.
    pub statistic: f64,
    /// Fraction of permutations, the identity included, whose statistic is at least as large.
    pub p_value: f64,
}

/// Two-sample permutation test of `x` `[n, dim]` and `y` `[m, dim]` with the unbiased estimator of [`mmd`]. Memory
/// grows with the square of the number of rows.
///
/// # Errors
/// Those of [`mmd`].
pub fn mmd_test(x: &Tensor, y: &Tensor, kernels: &[Kernel], permutations: usize, seed: u64) -> Result<PermutationTest> {
    check_same_dim("mmd_test", x, y)?;
    no_grad(|| {
        let both = Tensor::cat(&[x, y], 0)?.to_dtype(DType::F64)?;
        let mut kernel = None;
        for k in kernels {
            kernel = add(kernel, k.matrix(&both, &both)?)?;
        }
        let Some(kernel) = kernel else { return Err(no_kernel("mmd_test")) };
        let (m, all) = (x.size(0)? as usize, both.size(0)? as usize);
        let n = all - m;
        let kernel = kernel.masked_fill(&Tensor::eye(all as i64, DType::Bool, both.device())?, 0.0)?;
        // One indicator column per permutation (1 for the first set): three matrix products serve all permutations at
        // once.
        let mut columns = vec![0f64; all * (permutations + 1)];
        let mut order: Vec<usize> = (0..all).collect();
        let mut rng = Rng::new(&[seed, 77]);
        for column in 0..=permutations {
            if column > 0 {
                rng.shuffle(&mut order);
            }
            order[..m].iter().for_each(|row| columns[row * (permutations + 1) + column] = 1.0);
        }
        let first = Tensor::from_vec(&columns, &[all as i64, permutations as i64 + 1])?.to_device(both.device())?;
        let second = first.neg()?.add_scalar(1.0)?;
        let (kernel_first, kernel_second) = (kernel.matmul(&first)?, kernel.matmul(&second)?);
        let share = 1.0 / kernels.len() as f64;
        let xx = first.mul(&kernel_first)?.sum_dim(&[0], false)?.mul_scalar(share / (m * (m - 1)) as f64)?;
        let yy = second.mul(&kernel_second)?.sum_dim(&[0], false)?.mul_scalar(share / (n * (n - 1)) as f64)?;
        let xy = first.mul(&kernel_second)?.sum_dim(&[0], false)?.mul_scalar(2.0 * share / (m * n) as f64)?;
        let statistics = xx.add(&yy)?.sub(&xy)?.to_vec::<f64>()?;
        // Ties up to rounding count as at least as large.
        let threshold = statistics[0] - 1e-12 * statistics[0].abs().max(1e-12);
        let above = statistics.iter().filter(|s| **s >= threshold).count();
        Ok(PermutationTest { statistic: statistics[0], p_value: above as f64 / statistics.len() as f64 })
    })
}
