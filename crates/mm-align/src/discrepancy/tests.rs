//! All measures: properties, hand calculations, gradients.

use super::*;
use crate::{Result, kernel::Kernel};
use mm_core::{DType, Device, Tensor, seed::manual_seed};
use proptest::prelude::*;

const GAUSSIAN: Kernel = Kernel::Gaussian { bandwidth: 1.0 };

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, DType::F64, Device::Cpu).unwrap()
}

fn value(x: Result<Tensor>) -> f64 {
    x.unwrap().to_f64().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn distances_are_zero_for_equal_sets_and_grow_with_a_shift(seed in 0u64..1000) {
        manual_seed(seed);
        let x = randn(&[30, 3]);
        let order = Tensor::randperm(30, Device::Cpu).unwrap();
        let permuted = x.index_select(0, &order).unwrap();
        let kernels =
            [Kernel::Gaussian { bandwidth: 1.5 }, Kernel::Laplace { bandwidth: 1.0 }, Kernel::Polynomial { degree: 2.0 }];
        let all = |y: &Tensor| [
            value(mmd(&x, y, &kernels, MmdEstimator::Biased)),
            value(energy_distance(&x, y)),
            value(sliced_wasserstein(&x, y, 20, 1)),
            value(central_moment_discrepancy(&x, y, 4, 8.0)),
        ];
        prop_assert!(all(&permuted).iter().all(|d| d.abs() < 1e-9));
        prop_assert!(value(coral(&x, &permuted)).abs() < 1e-12);
        let (near, far) = (all(&x.add_scalar(0.5).unwrap()), all(&x.add_scalar(1.0).unwrap()));
        for (a, b) in near.iter().zip(far) {
            prop_assert!(*a > 1e-6 && b > *a);
        }
        prop_assert!((value(cka(&x, &x.mul_scalar(3.0).unwrap().add_scalar(1.0).unwrap())) - 1.0).abs() < 1e-9);
    }
}

#[test]
fn estimates_match_a_hand_calculation() {
    let x = Tensor::from_vec(&[0f64, 1.0], &[2, 1]).unwrap();
    let y = Tensor::from_vec(&[0f64, 3.0], &[2, 1]).unwrap();
    let k = |d: f64| (-d * d / 2.0).exp();
    let kernels = [GAUSSIAN];
    let biased = (2.0 + 2.0 * k(1.0)) / 4.0 + (2.0 + 2.0 * k(3.0)) / 4.0 - 2.0 * (1.0 + k(3.0) + k(1.0) + k(2.0)) / 4.0;
    assert!((value(mmd(&x, &y, &kernels, MmdEstimator::Biased)) - biased).abs() < 1e-12);
    let unbiased = k(1.0) + k(3.0) - 2.0 * (1.0 + k(3.0) + k(1.0) + k(2.0)) / 4.0;
    assert!((value(mmd(&x, &y, &kernels, MmdEstimator::Unbiased)) - unbiased).abs() < 1e-12);
    let linear = k(1.0) + k(3.0) - k(3.0) - k(1.0);
    assert!((value(mmd(&x, &y, &kernels, MmdEstimator::Linear)) - linear).abs() < 1e-12);
    let energy = 2.0 * (0.0 + 3.0 + 1.0 + 2.0) / 4.0 - 0.5 - 1.5;
    assert!((value(energy_distance(&x, &y)) - energy).abs() < 1e-9);
    // Variances ½ and 4½.
    assert!((value(coral(&x, &y)) - 16.0 / 4.0).abs() < 1e-12);
}

#[test]
fn p_values_are_uniform_under_the_null_and_small_under_a_shift() {
    manual_seed(8);
    let mut values: Vec<f64> = (0..200u64)
        .map(|trial| mmd_test(&randn(&[15, 2]), &randn(&[20, 2]), &[GAUSSIAN], 99, trial).unwrap().p_value)
        .collect();
    values.sort_by(f64::total_cmp);
    // Kolmogorov–Smirnov at 0.001 for 200 values: 0.138; steps of 0.01 add as much.
    let distance = values.iter().enumerate().map(|(i, p)| (p - (i as f64 + 0.5) / 200.0).abs()).fold(0.0, f64::max);
    assert!(distance < 0.15, "{distance}");
    let shifted = randn(&[40, 2]).add_scalar(1.0).unwrap();
    assert!(mmd_test(&randn(&[40, 2]), &shifted, &[GAUSSIAN], 199, 1).unwrap().p_value <= 0.01);
}

type Loss = fn(&Tensor, &Tensor) -> Result<Tensor>;

#[test]
fn blockwise_sums_equal_the_full_matrix_and_gradients_match_finite_differences() {
    manual_seed(2);
    let (x, y) = (randn(&[2100, 2]), randn(&[1500, 2]));
    let kernels = [GAUSSIAN];
    let whole = |a: &Tensor, b: &Tensor| value(kernels[0].matrix(a, b).unwrap().mean().map_err(Into::into));
    let direct = whole(&x, &x) + whole(&y, &y) - 2.0 * whole(&x, &y);
    assert!((value(mmd(&x, &y, &kernels, MmdEstimator::Biased)) - direct).abs() < 1e-9);
    let x = randn(&[6, 2]).set_requires_grad(true).unwrap();
    let y = randn(&[5, 2]);
    let losses: [(&str, Loss); 5] = [
        ("mmd", |x, y| mmd(x, y, &[GAUSSIAN], MmdEstimator::Unbiased)),
        ("energy", |x, y| energy_distance(x, y)),
        ("coral", |x, y| coral(x, y)),
        ("moments", |x, y| central_moment_discrepancy(x, y, 3, 4.0)),
        ("sliced", |x, y| sliced_wasserstein(x, y, 10, 1)),
    ];
    for (name, loss) in losses {
        x.zero_grad();
        loss(&x, &y).unwrap().backward().unwrap();
        let grad = x.grad().unwrap().to_vec::<f64>().unwrap();
        let base = x.to_vec::<f64>().unwrap();
        for index in [0, 7] {
            let perturbed = |by: f64| {
                let mut values = base.clone();
                values[index] += by;
                value(loss(&Tensor::from_vec(&values, &[6, 2]).unwrap(), &y))
            };
            let numeric = (perturbed(1e-5) - perturbed(-1e-5)) / 2e-5;
            assert!((numeric - grad[index]).abs() < 1e-5, "{name}: {numeric} {}", grad[index]);
        }
    }
    assert!(mmd(&x, &randn(&[5, 3]), &kernels, MmdEstimator::Biased).unwrap_err().to_string().contains("[5, 3]"));
    let conditional = conditional_mmd(&x, &[0, 0, 0, 1, 1, 2], &y, &[0, 0, 1, 1, 1], &kernels);
    assert!(value(conditional) > 0.0 && conditional_mmd(&x, &[0], &y, &[0], &kernels).is_err());
}
