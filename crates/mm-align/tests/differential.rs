//! Random inputs against other formulations of the same quantity, in plain float64 loops. A failing case prints its
//! input, and its seed is stored under `proptest-regressions`.
#![allow(missing_docs)]

use mm_align::{
    contrastive::{InfoNceOptions, Similarity, Temperature, info_nce, sigmoid_loss},
    correlation::cca,
    diagnose::{modality_gap, ranks},
    distance::{median_distance, squared_distances},
    dtw::{dtw, soft_dtw},
};
use mm_core::{DType, Tensor};
use proptest::{collection::vec, prelude::*};

type Matrix = Vec<Vec<f64>>;

fn rows(values: &[f64], columns: usize) -> Matrix {
    values.chunks(columns).map(<[f64]>::to_vec).collect()
}

fn tensor(values: &[f64], columns: usize) -> Tensor {
    Tensor::from_vec(values, &[(values.len() / columns) as i64, columns as i64]).unwrap()
}

fn product(a: &Matrix, b: &Matrix) -> Matrix {
    let cell = |row: &[f64], j: usize| row.iter().zip(b).map(|(x, other)| x * other[j]).sum();
    a.iter().map(|row| (0..b[0].len()).map(|j| cell(row, j)).collect()).collect()
}

fn transpose(a: &Matrix) -> Matrix {
    (0..a[0].len()).map(|j| a.iter().map(|row| row[j]).collect()).collect()
}

/// `a⁻¹ · b` by Gaussian elimination with pivots.
fn solve(a: &Matrix, b: &Matrix) -> Matrix {
    let n = a.len();
    let mut joined: Matrix = a.iter().zip(b).map(|(x, y)| x.iter().chain(y).copied().collect()).collect();
    for i in 0..n {
        let pivot = (i..n).max_by(|p, q| joined[*p][i].abs().total_cmp(&joined[*q][i].abs())).unwrap();
        joined.swap(i, pivot);
        let pivot_row = joined[i].clone();
        for (other, row) in joined.iter_mut().enumerate().filter(|(other, _)| *other != i) {
            let factor = row[i] / pivot_row[i];
            assert!(factor.is_finite(), "row {other} of a singular matrix");
            row.iter_mut().zip(&pivot_row).for_each(|(x, p)| *x -= factor * p);
        }
    }
    joined.iter().enumerate().map(|(i, row)| row[n..].iter().map(|x| x / row[i]).collect()).collect()
}

/// Covariance of columns, with a multiple of the first set's mean variance on its diagonal.
fn covariance(a: &Matrix, b: &Matrix, ridge: Option<f64>) -> Matrix {
    let center = |m: &Matrix| -> Matrix {
        let columns = transpose(m);
        let centered = columns.iter().map(|c| {
            let mean = c.iter().sum::<f64>() / c.len() as f64;
            c.iter().map(|x| x - mean).collect()
        });
        centered.collect()
    };
    let mut out = product(&center(a), &transpose(&center(b)));
    out.iter_mut().flatten().for_each(|x| *x /= (a.len() - 1) as f64);
    if let Some(ridge) = ridge {
        let mean_variance = (0..out.len()).map(|i| out[i][i]).sum::<f64>() / out.len() as f64;
        (0..out.len()).for_each(|i| out[i][i] += ridge * mean_variance);
    }
    out
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn value(x: Tensor) -> f64 {
    x.to_f64().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The squared correlations are the eigenvalues of Saa⁻¹ Sab Sbb⁻¹ Sba, whose powers' traces are their power sums:
    /// these determine them, and need no eigenvalue solver.
    #[test]
    fn cca_solves_the_generalized_eigenvalue_problem(
        a in vec(-2f64..2.0, 24 * 3), b in vec(-2f64..2.0, 24 * 4), ridges in (0.0f64..2.0, 0.0f64..2.0),
    ) {
        let fit = cca(&tensor(&a, 3), &tensor(&b, 4), None, [ridges.0, ridges.1]).unwrap();
        let found = fit.values.to_vec::<f64>().unwrap();
        let (a, b) = (rows(&a, 3), rows(&b, 4));
        let (saa, sbb) = (covariance(&a, &a, Some(ridges.0)), covariance(&b, &b, Some(ridges.1)));
        let (sab, sba) = (covariance(&a, &b, None), covariance(&b, &a, None));
        let matrix = product(&solve(&saa, &sab), &solve(&sbb, &sba));
        let mut power = matrix.clone();
        for exponent in 1..=3 {
            let trace: f64 = (0..3).map(|i| power[i][i]).sum();
            let sum: f64 = found.iter().map(|r| r.powi(2 * exponent)).sum();
            prop_assert!((trace - sum).abs() < 1e-9, "power {exponent}: {trace}, {sum}");
            power = product(&power, &matrix);
        }
    }

    #[test]
    fn soft_and_hard_warping_equal_the_plain_recursion(
        (n, m, cost) in (1usize..12, 1usize..12).prop_flat_map(|(n, m)| (Just(n), Just(m), vec(0f64..5.0, n * m))),
        gamma in 0.01f64..3.0,
    ) {
        let mut soft = vec![vec![f64::INFINITY; m + 1]; n + 1];
        let mut hard = soft.clone();
        (soft[0][0], hard[0][0]) = (0.0, 0.0);
        for i in 1..=n {
            for j in 1..=m {
                let before = |t: &Matrix| [t[i - 1][j - 1], t[i - 1][j], t[i][j - 1]];
                let least = before(&soft).into_iter().fold(f64::INFINITY, f64::min);
                let sum: f64 = before(&soft).iter().map(|v| (-(v - least) / gamma).exp()).sum();
                let own = cost[(i - 1) * m + j - 1];
                soft[i][j] = own + least - gamma * sum.ln();
                hard[i][j] = own + before(&hard).into_iter().fold(f64::INFINITY, f64::min);
            }
        }
        let cost = tensor(&cost, m);
        prop_assert!((dtw(&cost).unwrap().cost - hard[n][m]).abs() < 1e-9);
        let batch = cost.unsqueeze(0).unwrap();
        prop_assert!((value(soft_dtw(&batch, gamma).unwrap()) - soft[n][m]).abs() < 1e-8);
        let single = soft_dtw(&batch.to_dtype(DType::F32).unwrap(), gamma).unwrap();
        prop_assert!((value(single) - soft[n][m]).abs() < 1e-4 * soft[n][m].abs().max(1.0));
    }

    #[test]
    fn losses_and_measures_equal_plain_loops(
        a in vec(-2f64..2.0, 6 * 4), b in vec(-2f64..2.0, 6 * 4), scale in 0.5f64..30.0, bias in -5f64..5.0,
    ) {
        let (x, y) = (tensor(&a, 4), tensor(&b, 4));
        let similarity = Similarity::cosine(&x, &y).unwrap();
        let (scalar, offset) = (Tensor::from_slice(&[scale]).unwrap(), Tensor::from_slice(&[bias]).unwrap());
        let (left, right) = (rows(&a, 4), rows(&b, 4));
        let cosines: Matrix = left.iter().map(|p| right.iter().map(|q| cosine(p, q)).collect()).collect();

        let log_sum = |logits: Vec<f64>| logits.iter().map(|l| l.exp()).sum::<f64>().ln();
        let (mut both, mut sigmoid, mut expected_ranks) = (0.0, 0.0, Vec::new());
        for (i, row) in cosines.iter().enumerate() {
            let by_row = log_sum(row.iter().map(|c| scale * c).collect());
            let by_column = log_sum(cosines.iter().map(|other| scale * other[i]).collect());
            both += (by_row + by_column) / 2.0 - scale * row[i];
            let sign = |j: usize| if i == j { 1.0 } else { -1.0 };
            sigmoid += (0..6).map(|j| (1.0 + (-sign(j) * (scale * row[j] + bias)).exp()).ln()).sum::<f64>();
            expected_ranks.push(row.iter().filter(|c| **c >= row[i]).count());
        }
        prop_assert!((value(info_nce(&similarity, Temperature::Inverse(&scalar), InfoNceOptions::default()).unwrap()) - both / 6.0).abs() < 1e-9);
        let found = value(sigmoid_loss(&similarity, Temperature::Inverse(&scalar), &offset, None).unwrap());
        prop_assert!((found - sigmoid / 6.0).abs() < 1e-5 * found.max(1.0), "{found}, {}", sigmoid / 6.0);
        prop_assert_eq!(ranks(&tensor(&cosines.concat(), 6)).unwrap(), expected_ranks);

        let gap = modality_gap(&x, &y).unwrap();
        let alignment = (0..6).map(|i| 2.0 - 2.0 * cosines[i][i]).sum::<f64>() / 6.0;
        prop_assert!((gap.alignment - alignment).abs() < 1e-9);
        let all: Matrix = left.iter().chain(&right).cloned().collect();
        let pairs = || (0..12).flat_map(|i| (0..12).filter(move |j| *j != i).map(move |j| (i, j)));
        let potential = pairs().map(|(i, j)| (-2.0 * (2.0 - 2.0 * cosine(&all[i], &all[j]))).exp()).sum::<f64>() / 132.0;
        prop_assert!((gap.uniformity - potential.ln()).abs() < 1e-9);

        let squared = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(s, t)| (s - t).powi(2)).sum::<f64>();
        let distances = squared_distances(&x, &y).unwrap().to_vec::<f64>().unwrap();
        for (cell, found) in distances.iter().enumerate() {
            prop_assert!((found - squared(&left[cell / 6], &right[cell % 6])).abs() < 1e-9);
        }
        let mut own: Vec<f64> = (0..6).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| squared(&left[i], &left[j]).sqrt()).collect();
        own.sort_by(f64::total_cmp);
        prop_assert!((median_distance(&x).unwrap() - own[own.len() / 2]).abs() < 1e-6);
    }
}
