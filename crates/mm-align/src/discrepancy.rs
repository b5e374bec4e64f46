//! How far two sets of features lie apart as distributions, rows unpaired: maximum mean discrepancy and its test (Gretton 2012), energy
//! distance (Székely 2013), CORAL (Sun 2016), central moments (Zellinger 2017), sliced Wasserstein (Rabin 2012); and how much paired rows
//! depend on each other: HSIC (Gretton 2005), CKA (Kornblith 2019).
//!
//! **Which when.** To *train* two encoders towards each other: [`mmd`] with several widths where batches have some hundred rows; [`coral`]
//! or [`central_moments`] where batches are small, for they are cheaper and never vanish; [`sliced_wasserstein`] where supports do not
//! overlap, since it still has a gradient there. To *decide* whether two sets differ: [`mmd_test`], which gives a p-value. To *report* a
//! distance without a setting: [`energy_distance`]. To compare two *representations of the same rows*: [`cka`] (whatever their widths);
//! [`hsic`] as a loss. All but the tests are differentiable.

use crate::{
    Result,
    correlation::{Kernel, finite, median_distance, squared_distances, wrong},
};
use mm_core::{DType, Tensor, no_grad, seed::Rng};

fn check(what: &'static str, x: &Tensor, y: &Tensor, paired: bool) -> Result<()> {
    let (a, b) = (x.shape(), y.shape());
    let fits = a.len() == 2 && b.len() == 2 && a[0] > 1 && b[0] > 1;
    if !fits || (paired && a[0] != b[0]) || (!paired && a[1] != b[1]) {
        let wanted = if paired {
            "two sets [rows, width] with as many rows, at least two"
        } else {
            "two sets [rows, width] of one width with at least two rows each"
        };
        return Err(wrong(what, format!("{a:?} and {b:?}"), wanted));
    }
    finite(what, 0, x)?;
    finite(what, 1, y)
}

/// Which estimate of the squared discrepancy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Estimate {
    /// All pairs: never negative, too large on few rows.
    #[default]
    Biased,
    /// Without each row with itself: right on average, may be negative.
    Unbiased,
    /// Neighbouring pairs alone: right on average, linear time, noisy.
    Linear,
}

/// Gaussian kernels of the median distance times ¼, ½, 1, 2 and 4: no width to be chosen.
pub fn kernels_around_median(x: &Tensor, y: &Tensor) -> Result<Vec<Kernel>> {
    let median = no_grad(|| median_distance(&Tensor::cat(&[x, y], 0)?))?;
    Ok([0.25, 0.5, 1.0, 2.0, 4.0].iter().map(|f| Kernel::Gaussian { width: f * median }).collect())
}

/// Rows of a block: a kernel of a block with all is computed and summed, never of all with all.
const BLOCK: i64 = 1024;

/// Sum of the kernels over all pairs, without the diagonal when `off`; in blocks, so that outside training memory is `1024 × rows`.
fn pair_sum(x: &Tensor, y: &Tensor, kernels: &[Kernel], off: bool) -> Result<Tensor> {
    let mut sum: Option<Tensor> = None;
    let rows = x.size(0)?;
    for from in (0..rows).step_by(BLOCK as usize) {
        let part = x.narrow(0, from, BLOCK.min(rows - from))?;
        for kernel in kernels {
            let mut value = kernel.of(&part, y)?;
            if off {
                let diagonal = Tensor::eye(rows, DType::Bool, x.device())?.narrow(0, from, part.size(0)?)?;
                value = value.masked_fill(&diagonal, 0.0)?;
            }
            let value = value.sum()?;
            sum = Some(sum.map_or_else(|| Ok(value.clone()), |s| s.add(&value))?);
        }
    }
    sum.ok_or_else(|| wrong("mmd", "no kernel", "at least one"))
}

/// Squared maximum mean discrepancy of `[rows, width]` and `[other rows, width]` under the sum of the kernels over their number.
pub fn mmd(x: &Tensor, y: &Tensor, kernels: &[Kernel], estimate: Estimate) -> Result<Tensor> {
    check("mmd", x, y, false)?;
    let (m, n) = (x.size(0)? as f64, y.size(0)? as f64);
    let share = 1.0 / kernels.len().max(1) as f64;
    let whole = if estimate == Estimate::Linear {
        let pairs = x.size(0)?.min(y.size(0)?) / 2;
        let take = |t: &Tensor, odd: i64| -> Result<Tensor> {
            let places: Vec<i64> = (0..pairs).map(|p| 2 * p + odd).collect();
            Ok(t.index_select(0, &Tensor::from_slice(&places)?.to_device(t.device())?)?)
        };
        let (x0, x1, y0, y1) = (take(x, 0)?, take(x, 1)?, take(y, 0)?, take(y, 1)?);
        let mut sum: Option<Tensor> = None;
        for kernel in kernels {
            let each = |a: &Tensor, b: &Tensor| row_kernel(kernel, a, b);
            let h = each(&x0, &x1)?.add(&each(&y0, &y1)?)?.sub(&each(&x0, &y1)?)?.sub(&each(&x1, &y0)?)?;
            let h = h.mean()?;
            sum = Some(sum.map_or_else(|| Ok(h.clone()), |s| s.add(&h))?);
        }
        sum.ok_or_else(|| wrong("mmd", "no kernel", "at least one"))?
    } else {
        let off = estimate == Estimate::Unbiased;
        let own = |count: f64| if off { count * (count - 1.0) } else { count * count };
        let xx = pair_sum(x, x, kernels, off)?.mul_scalar(1.0 / own(m))?;
        let yy = pair_sum(y, y, kernels, off)?.mul_scalar(1.0 / own(n))?;
        let xy = pair_sum(x, y, kernels, false)?.mul_scalar(2.0 / (m * n))?;
        xx.add(&yy)?.sub(&xy)?
    };
    Ok(whole.mul_scalar(share)?)
}

/// The kernel of each row of one with the same row of the other, `[rows]`.
fn row_kernel(kernel: &Kernel, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let off = || -> Result<Tensor> { Ok(a.sub(b)?.pow(2.0)?.sum_dims(&[1], false)?) };
    let dot = || -> Result<Tensor> { Ok(a.mul(b)?.sum_dims(&[1], false)?) };
    Ok(match kernel {
        Kernel::Gaussian { width } => off()?.mul_scalar(-0.5 / (width * width))?.exp()?,
        Kernel::Laplace { width } => off()?.add_scalar(1e-12)?.sqrt()?.mul_scalar(-1.0 / width)?.exp()?,
        Kernel::Polynomial { degree } => dot()?.mul_scalar(1.0 / a.size(1)? as f64)?.add_scalar(1.0)?.pow(*degree)?,
        Kernel::Linear => dot()?,
    })
}

/// Squared discrepancy of pairs as one distribution (joint, Long 2017): the kernel of a pair is the product of its halves' kernels.
pub fn joint_mmd(x: [&Tensor; 2], y: [&Tensor; 2], kernels: [Kernel; 2]) -> Result<Tensor> {
    check("joint_mmd", x[0], x[1], true)?;
    check("joint_mmd", y[0], y[1], true)?;
    let product = |a: [&Tensor; 2], b: [&Tensor; 2]| -> Result<Tensor> {
        Ok(kernels[0].of(a[0], b[0])?.mul(&kernels[1].of(a[1], b[1])?)?.mean()?)
    };
    Ok(product(x, x)?.add(&product(y, y)?)?.sub(&product(x, y)?.mul_scalar(2.0)?)?)
}

/// Squared discrepancy within each class, averaged over the classes that both sets have at least two rows of (conditional).
pub fn conditional_mmd(
    x: &Tensor,
    x_labels: &[i64],
    y: &Tensor,
    y_labels: &[i64],
    kernels: &[Kernel],
) -> Result<Tensor> {
    check("conditional_mmd", x, y, false)?;
    if x_labels.len() as i64 != x.size(0)? || y_labels.len() as i64 != y.size(0)? {
        let found = format!("{} and {} labels", x_labels.len(), y_labels.len());
        return Err(wrong("conditional_mmd", found, format!("{} and {}", x.size(0)?, y.size(0)?)));
    }
    let of = |labels: &[i64], class: i64| -> Vec<i64> {
        labels.iter().enumerate().filter(|(_, l)| **l == class).map(|(p, _)| p as i64).collect()
    };
    let mut classes: Vec<i64> = x_labels.to_vec();
    classes.sort_unstable();
    classes.dedup();
    let (mut sum, mut count): (Option<Tensor>, f64) = (None, 0.0);
    for class in classes {
        let (a, b) = (of(x_labels, class), of(y_labels, class));
        if a.len() < 2 || b.len() < 2 {
            continue;
        }
        let pick = |t: &Tensor, places: &[i64]| -> Result<Tensor> {
            Ok(t.index_select(0, &Tensor::from_slice(places)?.to_device(t.device())?)?)
        };
        let value = mmd(&pick(x, &a)?, &pick(y, &b)?, kernels, Estimate::Biased)?;
        sum = Some(sum.map_or_else(|| Ok(value.clone()), |s| s.add(&value))?);
        count += 1.0;
    }
    match sum {
        Some(sum) => Ok(sum.mul_scalar(1.0 / count)?),
        None => Err(wrong("conditional_mmd", "no class with two rows in both sets", "at least one")),
    }
}

/// What a test finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    /// The statistic of the sets as they are.
    pub statistic: f64,
    /// Share of the orders, this one among them, whose statistic is at least as large.
    pub p_value: f64,
}

/// Whether two sets are of one distribution: the unbiased discrepancy against that of `permutations` random divisions of all rows. Memory
/// grows with the square of the rows.
pub fn mmd_test(x: &Tensor, y: &Tensor, kernels: &[Kernel], permutations: usize, seed: u64) -> Result<Test> {
    check("mmd_test", x, y, false)?;
    no_grad(|| {
        let both = Tensor::cat(&[x, y], 0)?.to_dtype(DType::F64)?;
        let mut kernel: Option<Tensor> = None;
        for k in kernels {
            let value = k.of(&both, &both)?;
            kernel = Some(kernel.map_or_else(|| Ok(value.clone()), |s| s.add(&value))?);
        }
        let Some(kernel) = kernel else { return Err(wrong("mmd_test", "no kernel", "at least one")) };
        let (m, all) = (x.size(0)? as usize, both.size(0)? as usize);
        let n = all - m;
        let kernel = kernel.masked_fill(&Tensor::eye(all as i64, DType::Bool, both.device())?, 0.0)?;
        // Each order is a column of ones (first set) and zeros: three products serve all orders at once.
        let mut columns = vec![0f64; all * (permutations + 1)];
        let mut order: Vec<usize> = (0..all).collect();
        let mut random = Rng::at(&[seed, 77]);
        for column in 0..=permutations {
            if column > 0 {
                random.shuffle(&mut order);
            }
            order[..m].iter().for_each(|row| columns[row * (permutations + 1) + column] = 1.0);
        }
        let first = Tensor::from_vec(&columns, &[all as i64, permutations as i64 + 1])?.to_device(both.device())?;
        let second = first.neg()?.add_scalar(1.0)?;
        let (kf, ks) = (kernel.matmul(&first)?, kernel.matmul(&second)?);
        let share = 1.0 / kernels.len() as f64;
        let xx = first.mul(&kf)?.sum_dims(&[0], false)?.mul_scalar(share / (m * (m - 1)) as f64)?;
        let yy = second.mul(&ks)?.sum_dims(&[0], false)?.mul_scalar(share / (n * (n - 1)) as f64)?;
        let xy = first.mul(&ks)?.sum_dims(&[0], false)?.mul_scalar(2.0 * share / (m * n) as f64)?;
        let statistics = xx.add(&yy)?.sub(&xy)?.to_vec::<f64>()?;
        // Ties by rounding count as at least as large.
        let least = statistics[0] - 1e-12 * statistics[0].abs().max(1e-12);
        let above = statistics.iter().filter(|s| **s >= least).count();
        Ok(Test { statistic: statistics[0], p_value: above as f64 / statistics.len() as f64 })
    })
}

/// 2 E‖x − y‖ − E‖x − x′‖ − E‖y − y′‖, all pairs (biased).
pub fn energy_distance(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check("energy_distance", x, y, false)?;
    // The root has no slope at zero, where a row meets itself.
    let mean = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        let squares = squared_distances(a, b)?;
        let zero = squares.gt_scalar(1e-12)?.logical_not()?;
        Ok(squares.masked_fill(&zero, 1e-24)?.sqrt()?.mean()?)
    };
    Ok(mean(x, y)?.mul_scalar(2.0)?.sub(&mean(x, x)?)?.sub(&mean(y, y)?)?)
}

/// ‖cov(x) − cov(y)‖² / (4 width²): the second moments brought together (CORAL; deep CORAL when the features are learned).
pub fn coral(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check("coral", x, y, false)?;
    let covariance = |t: &Tensor| -> Result<Tensor> {
        let centred = t.sub(&t.mean_dims(&[0], true)?)?;
        Ok(centred.transpose(0, 1)?.matmul(&centred)?.mul_scalar(1.0 / (t.size(0)? - 1) as f64)?)
    };
    let width = x.size(1)? as f64;
    Ok(covariance(x)?.sub(&covariance(y)?)?.pow(2.0)?.sum()?.mul_scalar(0.25 / (width * width))?)
}

/// Distances of the means and of the central moments up to `order`, of features bounded to an interval of this length (tanh: 2).
pub fn central_moments(x: &Tensor, y: &Tensor, order: i32, length: f64) -> Result<Tensor> {
    check("central_moments", x, y, false)?;
    let norm = |t: &Tensor| -> Result<Tensor> { Ok(t.pow(2.0)?.sum()?.add_scalar(1e-24)?.sqrt()?) };
    let (mx, my) = (x.mean_dims(&[0], true)?, y.mean_dims(&[0], true)?);
    let (cx, cy) = (x.sub(&mx)?, y.sub(&my)?);
    let mut sum = norm(&mx.sub(&my)?)?.mul_scalar(1.0 / length)?;
    for k in 2..=order {
        let moment = |c: &Tensor| c.pow(f64::from(k))?.mean_dims(&[0], false);
        sum = sum.add(&norm(&moment(&cx)?.sub(&moment(&cy)?)?)?.mul_scalar(length.powi(-k))?)?;
    }
    Ok(sum)
}

/// Squared 2-Wasserstein distance of the sets' shadows on `directions` random lines, averaged. Sets of different sizes are compared at
/// the smaller one's quantiles.
pub fn sliced_wasserstein(x: &Tensor, y: &Tensor, directions: i64, seed: u64) -> Result<Tensor> {
    check("sliced_wasserstein", x, y, false)?;
    let width = x.size(1)?;
    let mut random = Rng::at(&[seed, 5]);
    // Box and Muller's way, so that the directions do not move libtorch's generator.
    let normal: Vec<f64> = (0..width * directions.max(1))
        .map(|_| (-2.0 * (1.0 - random.unit()).ln()).sqrt() * (std::f64::consts::TAU * random.unit()).cos())
        .collect();
    let lines = Tensor::from_vec(&normal, &[directions.max(1), width])?.normalize()?.to_dtype(x.dtype()?)?;
    let lines = lines.to_device(x.device())?.transpose(0, 1)?;
    let shadow = |t: &Tensor| -> Result<Tensor> { Ok(t.matmul(&lines)?.sort(0, false)?.0) };
    let (mut a, mut b) = (shadow(x)?, shadow(y)?);
    let (m, n) = (a.size(0)?, b.size(0)?);
    let at = |t: &Tensor, have: i64, want: i64| -> Result<Tensor> {
        let places: Vec<i64> = (0..want)
            .map(|p| ((p as f64 + 0.5) / want as f64 * have as f64).floor() as i64)
            .map(|p| p.min(have - 1))
            .collect();
        Ok(t.index_select(0, &Tensor::from_slice(&places)?.to_device(t.device())?)?)
    };
    if m > n {
        a = at(&a, m, n)?;
    } else if n > m {
        b = at(&b, n, m)?;
    }
    Ok(a.sub(&b)?.pow(2.0)?.mean()?)
}

fn centred_kernel(kernel: &Kernel, x: &Tensor) -> Result<Tensor> {
    let k = kernel.of(x, x)?;
    let columns = k.mean_dims(&[0], true)?;
    Ok(k.sub(&columns)?.sub(&columns.transpose(0, 1)?)?.add(&columns.mean()?)?)
}

/// Hilbert–Schmidt independence criterion of paired rows (biased, over (rows − 1)²): 0 when they do not depend on each other.
pub fn hsic(x: &Tensor, y: &Tensor, kernels: [Kernel; 2]) -> Result<Tensor> {
    check("hsic", x, y, true)?;
    let rows = (x.size(0)? - 1) as f64;
    Ok(centred_kernel(&kernels[0], x)?.mul(&centred_kernel(&kernels[1], y)?)?.sum()?.mul_scalar(1.0 / (rows * rows))?)
}

/// Linear centred kernel alignment of two representations of the same rows: 1 when they are the same up to a turn and a scale.
pub fn cka(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    check("cka", x, y, true)?;
    let level = |t: &Tensor| -> Result<Tensor> { Ok(t.sub(&t.mean_dims(&[0], true)?)?) };
    let (x, y) = (level(x)?, level(y)?);
    // Widths are smaller than rows more often than not: ‖YᵀX‖² instead of kernels.
    let cross = |a: &Tensor, b: &Tensor| a.transpose(0, 1)?.matmul(b)?.pow(2.0)?.sum();
    Ok(cross(&x, &y)?.div(&cross(&x, &x)?.mul(&cross(&y, &y)?)?.add_scalar(1e-24)?.sqrt()?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};
    use proptest::prelude::*;

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F64, Device::Cpu).unwrap()
    }

    fn value(x: Result<Tensor>) -> f64 {
        x.unwrap().to_f64().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn a_set_is_at_no_distance_from_itself_and_farther_the_more_it_is_moved(seed in 0u64..1000) {
            manual_seed(seed);
            let x = randn(&[30, 3]);
            let order = Tensor::randperm(30, Device::Cpu).unwrap();
            let same = x.index_select(0, &order).unwrap();
            let kernels = [Kernel::Gaussian { width: 1.5 }, Kernel::Laplace { width: 1.0 }, Kernel::Polynomial { degree: 2.0 }];
            let all = |y: &Tensor| [
                value(mmd(&x, y, &kernels, Estimate::Biased)),
                value(energy_distance(&x, y)),
                value(sliced_wasserstein(&x, y, 20, 1)),
                value(central_moments(&x, y, 4, 8.0)),
            ];
            prop_assert!(all(&same).iter().all(|d| d.abs() < 1e-9));
            prop_assert!(value(coral(&x, &same)).abs() < 1e-12);
            let (near, far) = (all(&x.add_scalar(0.5).unwrap()), all(&x.add_scalar(1.0).unwrap()));
            for (a, b) in near.iter().zip(far) {
                prop_assert!(*a > 1e-6 && b > *a);
            }
            prop_assert!((value(cka(&x, &x.mul_scalar(3.0).unwrap().add_scalar(1.0).unwrap())) - 1.0).abs() < 1e-9);
        }
    }

    #[test]
    fn estimates_are_those_of_a_hand_calculation() {
        let x = Tensor::from_vec(&[0f64, 1.0], &[2, 1]).unwrap();
        let y = Tensor::from_vec(&[0f64, 3.0], &[2, 1]).unwrap();
        let k = |d: f64| (-d * d / 2.0).exp();
        let kernels = [Kernel::Gaussian { width: 1.0 }];
        let biased =
            (2.0 + 2.0 * k(1.0)) / 4.0 + (2.0 + 2.0 * k(3.0)) / 4.0 - 2.0 * (1.0 + k(3.0) + k(1.0) + k(2.0)) / 4.0;
        assert!((value(mmd(&x, &y, &kernels, Estimate::Biased)) - biased).abs() < 1e-12);
        let unbiased = k(1.0) + k(3.0) - 2.0 * (1.0 + k(3.0) + k(1.0) + k(2.0)) / 4.0;
        assert!((value(mmd(&x, &y, &kernels, Estimate::Unbiased)) - unbiased).abs() < 1e-12);
        let linear = k(1.0) + k(3.0) - k(3.0) - k(1.0);
        assert!((value(mmd(&x, &y, &kernels, Estimate::Linear)) - linear).abs() < 1e-12);
        let energy = 2.0 * (0.0 + 3.0 + 1.0 + 2.0) / 4.0 - 0.5 - 1.5;
        assert!((value(energy_distance(&x, &y)) - energy).abs() < 1e-9);
        // Variances ½ and 4½.
        assert!((value(coral(&x, &y)) - 16.0 / 4.0).abs() < 1e-12);
    }

    #[test]
    fn p_values_are_uniform_when_nothing_differs_and_small_when_something_does() {
        manual_seed(8);
        let mut values: Vec<f64> = (0..200u64)
            .map(|trial| {
                let (x, y) = (randn(&[15, 2]), randn(&[20, 2]));
                mmd_test(&x, &y, &[Kernel::Gaussian { width: 1.0 }], 99, trial).unwrap().p_value
            })
            .collect();
        values.sort_by(f64::total_cmp);
        // Kolmogorov and Smirnov at one in a thousand, 200 values: 0.138; steps of 0.01 add as much.
        let far = values.iter().enumerate().map(|(i, p)| (p - (i as f64 + 0.5) / 200.0).abs()).fold(0.0, f64::max);
        assert!(far < 0.15, "{far}");
        let moved = randn(&[40, 2]).add_scalar(1.0).unwrap();
        let found = mmd_test(&randn(&[40, 2]), &moved, &[Kernel::Gaussian { width: 1.0 }], 199, 1).unwrap();
        assert!(found.p_value <= 0.01);
    }

    type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;

    #[test]
    fn blocks_are_the_whole_and_gradients_flow() {
        manual_seed(2);
        let (x, y) = (randn(&[2100, 2]), randn(&[1500, 2]));
        let kernels = [Kernel::Gaussian { width: 1.0 }];
        let whole = |a: &Tensor, b: &Tensor| value(kernels[0].of(a, b).unwrap().mean().map_err(Into::into));
        let direct = whole(&x, &x) + whole(&y, &y) - 2.0 * whole(&x, &y);
        assert!((value(mmd(&x, &y, &kernels, Estimate::Biased)) - direct).abs() < 1e-9);
        let x = randn(&[6, 2]).set_requires_grad(true).unwrap();
        let y = randn(&[5, 2]);
        let losses: [(&str, Loss); 5] = [
            ("mmd", |x, y| mmd(x, y, &[Kernel::Gaussian { width: 1.0 }], Estimate::Unbiased)),
            ("energy", |x, y| energy_distance(x, y)),
            ("coral", |x, y| coral(x, y)),
            ("moments", |x, y| central_moments(x, y, 3, 4.0)),
            ("sliced", |x, y| sliced_wasserstein(x, y, 10, 1)),
        ];
        for (name, loss) in losses {
            x.zero_grad();
            loss(&x, &y).unwrap().backward().unwrap();
            let grad = x.grad().unwrap().to_vec::<f64>().unwrap();
            let base = x.to_vec::<f64>().unwrap();
            for place in [0, 7] {
                let at = |by: f64| {
                    let mut moved = base.clone();
                    moved[place] += by;
                    value(loss(&Tensor::from_vec(&moved, &[6, 2]).unwrap(), &y))
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!((slope - grad[place]).abs() < 1e-5, "{name}: {slope} {}", grad[place]);
            }
        }
        assert!(mmd(&x, &randn(&[5, 3]), &kernels, Estimate::Biased).unwrap_err().to_string().contains("[5, 3]"));
        let joint = joint_mmd([&y, &y], [&y, &y], [Kernel::Gaussian { width: 1.0 }; 2]);
        assert!(value(joint).abs() < 1e-12);
        let within = conditional_mmd(&x, &[0, 0, 0, 1, 1, 2], &y, &[0, 0, 1, 1, 1], &kernels);
        assert!(value(within) > 0.0 && conditional_mmd(&x, &[0], &y, &[0], &kernels).is_err());
    }
}
