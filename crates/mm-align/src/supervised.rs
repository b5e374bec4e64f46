//! What labels add: semantic matching, where each modality is mapped to class probabilities, and its correlated kind (Rasiwasia 2010).

use crate::{
    Result,
    correlation::{finite, wide, wrong},
};
use mm_core::{AdamStep, DType, Tensor, without_grad};

/// Multinomial logistic regression on features brought to mean zero and variance one.
#[derive(Debug, Clone)]
pub struct Logistic {
    mean: Tensor,
    deviation: Tensor,
    /// `[width + 1, classes]`, the last row the biases.
    weights: Tensor,
}

impl Logistic {
    /// Fits `[rows, width]` to class numbers `[rows]` below `classes`; `penalty` weighs half the squared weights. By Adam on all rows at
    /// once: the loss is convex and three hundred steps come near its end.
    pub fn fit(x: &Tensor, labels: &[i64], classes: i64, penalty: f64) -> Result<Self> {
        let rows = x.size(0)?;
        if rows as usize != labels.len() || rows < 1 {
            let found = format!("{} labels for {rows} rows", labels.len());
            return Err(wrong("logistic", found, "as many labels as rows, at least one"));
        }
        if let Some(label) = labels.iter().find(|l| !(0..classes).contains(l)) {
            return Err(wrong(
                "logistic",
                format!("label {label}"),
                format!("class numbers from 0 to {}", classes - 1),
            ));
        }
        finite("logistic", 0, x)?;
        without_grad(|| {
            let x = wide(x)?;
            let mean = x.mean_dims(&[0], true)?;
            let deviation = x.std_dims(&[0], false, true)?.add_scalar(1e-9)?;
            // A column of ones for the biases. The steps are in float32: they stop long before its precision would tell.
            let level = x.sub(&mean)?.div(&deviation)?.pad(&[0, 1], 1.0)?.to_dtype(DType::F32)?;
            let truth = Tensor::from_slice(labels)?.to_device(x.device())?.one_hot(classes)?.to_dtype(DType::F32)?;
            let weights = Tensor::zeros(&[level.size(1)?, classes], DType::F32, x.device())?;
            let (first, second) = (weights.zeros_like()?, weights.zeros_like()?);
            let turned = level.transpose(0, 1)?;
            for step in 1..=300u32 {
                let off = level.matmul(&weights)?.softmax(1)?.sub(&truth)?;
                let gradient =
                    turned.matmul(&off)?.mul_scalar(1.0 / rows as f64)?.add(&weights.mul_scalar(penalty)?)?;
                let rate = 0.1 * (1.0 - f64::from(step) / 301.0);
                weights.adam_(&gradient, &first, &second, &AdamStep::new(rate, step.into()))?;
            }
            Ok(Self { mean, deviation, weights: weights.to_dtype(DType::F64)? })
        })
    }

    /// Probabilities `[rows, classes]`, float64.
    pub fn probabilities(&self, x: &Tensor) -> Result<Tensor> {
        let level = wide(x)?.sub(&self.mean)?.div(&self.deviation)?.pad(&[0, 1], 1.0)?;
        Ok(level.matmul(&self.weights)?.softmax(1)?)
    }

    /// Likeliest classes.
    pub fn predict(&self, x: &Tensor) -> Result<Vec<i64>> {
        Ok(self.probabilities(x)?.argmax(1)?.to_vec()?)
    }
}

/// Where [`Logistic`] maps rows for matching: square roots of probabilities, whose dot product is the Bhattacharyya coefficient of two
/// distributions, so that a cosine compares them as distributions.
pub fn semantic(model: &Logistic, x: &Tensor) -> Result<Tensor> {
    Ok(model.probabilities(x)?.sqrt()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::seed_tensors};

    #[test]
    fn classes_that_can_be_told_are_told_and_wrong_labels_are_named() {
        seed_tensors(1);
        let x = Tensor::randn(&[120, 3], DType::F64, Device::Cpu).unwrap();
        let labels: Vec<i64> = x
            .to_vec::<f64>()
            .unwrap()
            .chunks(3)
            .map(|r| if r[0] > 0.0 { 1 } else { 2 * i64::from(r[1] > 0.0) })
            .collect();
        let model = Logistic::fit(&x, &labels, 3, 1e-4).unwrap();
        let right = model.predict(&x).unwrap().iter().zip(&labels).filter(|(a, b)| a == b).count();
        assert!(right > 112, "{right}");
        let rows = semantic(&model, &x).unwrap();
        assert!((rows.mul(&rows).unwrap().sum().unwrap().to_f64().unwrap() - 120.0).abs() < 1e-9);
        let text = |labels: &[i64]| Logistic::fit(&x, labels, 3, 1e-4).map(drop).unwrap_err().to_string();
        assert!(text(&labels[1..]).contains("119 labels for 120 rows"));
        assert!(text(&[3; 120]).contains("label 3"));
    }
}
