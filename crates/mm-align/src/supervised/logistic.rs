//! Multinomial logistic regression.

use crate::{
    Result,
    checks::{check_finite, invalid, to_f64},
};
use mm_core::{AdamStep, DType, Tensor, no_grad};

/// Steps and initial learning rate of the fit; the rate decays linearly to zero.
const STEPS: u32 = 300;
const LEARNING_RATE: f64 = 0.1;

/// Multinomial logistic regression on standardized features.
///
/// ```
/// use mm_align::supervised::LogisticRegression;
/// use mm_core::Tensor;
/// # fn main() -> mm_align::Result<()> {
/// let x = Tensor::from_vec(&[-2f64, -1.0, 1.0, 2.0], &[4, 1])?;
/// let model = LogisticRegression::fit(&x, &[0, 0, 1, 1], 2, 1e-3)?;
/// assert_eq!(model.predict(&x)?, [0, 0, 1, 1]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct LogisticRegression {
    mean: Tensor,
    std: Tensor,
    /// `[dim + 1, classes]`; the last row is the bias.
    weights: Tensor,
}

impl LogisticRegression {
    /// Fits features `[rows, dim]` to class indices `[rows]` below `num_classes`, with the penalty
    /// `l2 / 2 · ‖weights‖²`. The convex loss is minimized by 300 full-batch steps of Adam.
    ///
    /// # Errors
    /// When the numbers of rows and labels differ, a label is out of range, or a feature is not finite.
    pub fn fit(x: &Tensor, labels: &[i64], num_classes: i64, l2: f64) -> Result<Self> {
        let rows = x.size(0)?;
        if rows as usize != labels.len() || rows < 1 {
            let found = format!("{} labels for {rows} rows", labels.len());
            return Err(invalid("logistic regression", found, "one label per row, at least one row"));
        }
        if let Some(label) = labels.iter().find(|l| !(0..num_classes).contains(l)) {
            let expected = format!("class indices from 0 to {}", num_classes - 1);
            return Err(invalid("logistic regression", format!("label {label}"), expected));
        }
        check_finite("logistic regression", 0, x)?;
        no_grad(|| {
            let x = to_f64(x)?;
            let mean = x.mean_dim(&[0], true)?;
            let std = x.std_dim(&[0], false, true)?.add_scalar(1e-9)?;
            // A column of ones for the bias. Float32 is precise enough for the optimization.
            let inputs = x.sub(&mean)?.div(&std)?.pad(&[0, 1], 1.0)?.to_dtype(DType::F32)?;
            let targets =
                Tensor::from_slice(labels)?.to_device(x.device())?.one_hot(num_classes)?.to_dtype(DType::F32)?;
            let weights = Tensor::zeros(&[inputs.size(1)?, num_classes], DType::F32, x.device())?;
            let (exp_avg, exp_avg_sq) = (weights.zeros_like()?, weights.zeros_like()?);
            let transposed = inputs.transpose(0, 1)?;
            for step in 1..=STEPS {
                let residual = inputs.matmul(&weights)?.softmax(1)?.sub(&targets)?;
                let gradient =
                    transposed.matmul(&residual)?.mul_scalar(1.0 / rows as f64)?.add(&weights.mul_scalar(l2)?)?;
                let lr = LEARNING_RATE * (1.0 - f64::from(step) / f64::from(STEPS + 1));
                weights.adam_(&gradient, &exp_avg, &exp_avg_sq, &AdamStep::new(lr, step.into()))?;
            }
            Ok(Self { mean, std, weights: weights.to_dtype(DType::F64)? })
        })
    }

    /// Means `[dim]`, standard deviations `[dim]` and weights `[dim + 1, classes]` in row-major order, for saving.
    pub fn parameters(&self) -> Result<[Vec<f64>; 3]> {
        Ok([self.mean.to_vec()?, self.std.to_vec()?, self.weights.to_vec()?])
    }

    /// Restores a model from [`LogisticRegression::parameters`].
    ///
    /// # Errors
    /// When the lengths do not match.
    pub fn from_parameters(mean: &[f64], std: &[f64], weights: &[f64]) -> Result<Self> {
        let dim = mean.len();
        if std.len() != dim || weights.is_empty() || !weights.len().is_multiple_of(dim + 1) {
            let found = format!("{dim} means, {} standard deviations, {} weights", std.len(), weights.len());
            let expected = "as many standard deviations as means, and (dim + 1) · classes weights";
            return Err(invalid("logistic regression", found, expected));
        }
        let row = |values: &[f64]| Tensor::from_vec(values, &[1, dim as i64]);
        let classes = (weights.len() / (dim + 1)) as i64;
        Ok(Self { mean: row(mean)?, std: row(std)?, weights: Tensor::from_vec(weights, &[dim as i64 + 1, classes])? })
    }

    /// Class probabilities `[rows, classes]`, float64, of features `[rows, dim]`.
    pub fn predict_proba(&self, x: &Tensor) -> Result<Tensor> {
        let inputs = to_f64(x)?.sub(&self.mean)?.div(&self.std)?.pad(&[0, 1], 1.0)?;
        Ok(inputs.matmul(&self.weights)?.softmax(1)?)
    }

    /// Most probable class of each row.
    pub fn predict(&self, x: &Tensor) -> Result<Vec<i64>> {
        Ok(self.predict_proba(x)?.argmax(1)?.to_vec()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    #[test]
    fn separable_classes_are_predicted_and_invalid_labels_are_errors() {
        manual_seed(1);
        let x = Tensor::randn(&[120, 3], DType::F64, Device::Cpu).unwrap();
        let labels: Vec<i64> = x
            .to_vec::<f64>()
            .unwrap()
            .chunks(3)
            .map(|r| if r[0] > 0.0 { 1 } else { 2 * i64::from(r[1] > 0.0) })
            .collect();
        let model = LogisticRegression::fit(&x, &labels, 3, 1e-4).unwrap();
        let correct = model.predict(&x).unwrap().iter().zip(&labels).filter(|(a, b)| a == b).count();
        assert!(correct > 112, "{correct}");
        let text = |labels: &[i64]| LogisticRegression::fit(&x, labels, 3, 1e-4).map(drop).unwrap_err().to_string();
        assert!(text(&labels[1..]).contains("119 labels for 120 rows"));
        assert!(text(&[3; 120]).contains("label 3"));
    }
}
