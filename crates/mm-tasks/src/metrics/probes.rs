//! Linear probes: logistic and ridge regression on frozen features.

use crate::{Error, Result};
use mm_align::supervised::LogisticRegression;
use mm_core::{DType, Tensor, seed::Rng};

/// Row indices for fitting, and a seeded fifth for selecting the penalty.
fn inner_split(rows: i64) -> Result<(Tensor, Tensor)> {
    let mut order: Vec<i64> = (0..rows).collect();
    Rng::new(&[11, rows as u64]).shuffle(&mut order);
    let (select, fit) = order.split_at((rows as usize / 5).max(1));
    Ok((Tensor::from_slice(fit)?, Tensor::from_slice(select)?))
}

/// Predicts the classes of `test` `[rows, dim]` by multinomial logistic regression on `train` `[rows, dim]` and its
/// labels; the L2 penalty is selected on a fifth of the training rows.
///
/// # Errors
/// When there are fewer than five training rows, or not one label for each.
pub fn linear_probe(train: &Tensor, labels: &[i64], test: &Tensor, classes: i64) -> Result<Vec<i64>> {
    if labels.len() < 5 || labels.len() as i64 != train.size(0)? {
        let found = format!("{} labels for features of shape {:?}", labels.len(), train.shape());
        return Err(Error::Config(format!(
            "linear probe: found {found}, expected one label per row and at least 5 rows"
        )));
    }
    let (fit, select) = inner_split(train.size(0)?)?;
    let labels_of = |indices: &Tensor| -> Result<Vec<i64>> {
        Ok(indices.to_vec::<i64>()?.into_iter().map(|i| labels[i as usize]).collect())
    };
    let (x_fit, x_select) = (train.index_select(0, &fit)?, train.index_select(0, &select)?);
    let (y_fit, y_select) = (labels_of(&fit)?, labels_of(&select)?);
    let mut best = (-1.0, 0.0);
    for penalty in [1e-4, 1e-3, 1e-2, 1e-1] {
        let score =
            accuracy(&LogisticRegression::fit(&x_fit, &y_fit, classes, penalty)?.predict(&x_select)?, &y_select);
        if score > best.0 {
            best = (score, penalty);
        }
    }
    Ok(LogisticRegression::fit(train, labels, classes, best.1)?.predict(test)?)
}

/// Share of predictions that equal the labels.
pub fn accuracy(predicted: &[i64], labels: &[i64]) -> f64 {
    predicted.iter().zip(labels).filter(|(p, l)| p == l).count() as f64 / labels.len().max(1) as f64
}

/// Accuracy on `test` of always predicting the most frequent training label.
pub fn majority_class_accuracy(train: &[i64], test: &[i64], classes: i64) -> f64 {
    let count = |class: i64| train.iter().filter(|l| **l == class).count();
    let most_frequent = (0..classes).max_by_key(|class| count(*class)).unwrap_or(0);
    test.iter().filter(|l| **l == most_frequent).count() as f64 / test.len().max(1) as f64
}

/// Predictions for `test` `[rows, inputs]` of a ridge regression of `y` `[rows, outputs]` on `x` `[rows, inputs]`; the
/// penalty is selected on a fifth of the rows.
pub fn ridge_regression(x: &Tensor, y: &Tensor, test: &Tensor) -> Result<Tensor> {
    let (fit, select) = inner_split(x.size(0)?)?;
    let rows = |t: &Tensor, indices: &Tensor| t.index_select(0, indices);
    let mut best = (f64::INFINITY, 1.0);
    for penalty in [1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4] {
        let predicted = ridge_with_penalty(&rows(x, &fit)?, &rows(y, &fit)?, &rows(x, &select)?, penalty)?;
        let error = predicted.sub(&rows(y, &select)?)?.pow(2.0)?.mean()?.to_f64()?;
        if error < best.0 {
            best = (error, penalty);
        }
    }
    ridge_with_penalty(x, y, test, best.1)
}

fn ridge_with_penalty(x: &Tensor, y: &Tensor, test: &Tensor, penalty: f64) -> Result<Tensor> {
    let to_f64 = |t: &Tensor| t.to_dtype(DType::F64);
    let (mean_x, mean_y) = (to_f64(x)?.mean_dim(&[0], true)?, to_f64(y)?.mean_dim(&[0], true)?);
    let (centered_x, centered_y) = (to_f64(x)?.sub(&mean_x)?, to_f64(y)?.sub(&mean_y)?);
    let x_t = centered_x.transpose(0, 1)?;
    let eye = Tensor::eye(centered_x.size(1)?, DType::F64, centered_x.device())?.mul_scalar(penalty)?;
    let weights = x_t.matmul(&centered_x)?.add(&eye)?.solve(&x_t.matmul(&centered_y)?)?;
    Ok(to_f64(test)?.sub(&mean_x)?.matmul(&weights)?.add(&mean_y)?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    #[test]
    fn a_linear_probe_and_ridge_regression_find_linear_relations() {
        manual_seed(4);
        let x = Tensor::randn(&[300, 6], DType::F32, Device::Cpu).unwrap();
        let labels: Vec<i64> = x.to_vec::<f32>().unwrap().chunks(6).map(|r| i64::from(r[1] + r[2] > 0.3)).collect();
        let (train, test) = (x.narrow(0, 0, 200).unwrap(), x.narrow(0, 200, 100).unwrap());
        assert!(accuracy(&linear_probe(&train, &labels[..200], &test, 2).unwrap(), &labels[200..]) > 0.9);
        let map = Tensor::randn(&[6, 3], DType::F32, Device::Cpu).unwrap();
        let y = x.matmul(&map).unwrap().add_scalar(2.0).unwrap();
        let predicted = ridge_regression(&x, &y, &x).unwrap();
        assert!(predicted.sub(&y).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 0.01);
        assert!((majority_class_accuracy(&[0, 1, 1], &[1, 0, 1, 1], 2) - 0.75).abs() < 1e-9);
    }
}
