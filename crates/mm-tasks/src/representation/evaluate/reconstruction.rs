//! Reconstruction of each modality from itself.

use super::{super::model::RepresentationInput, EvalData, Representation, flat, mse, rows_with_all};
use crate::{
    Result,
    metrics::{Metric, Metrics, Pca},
};
use mm_core::{DType, InputSet, Modality, Tensor};
use mm_repr::generative::ValueType;

impl Representation {
    /// Each modality reconstructed from itself, against principal components of the same dimension and the mean.
    pub(super) fn reconstruction_metrics(&self, data: &EvalData) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        for (modality, input) in &self.inputs {
            let split = |set| rows_with_all(set, &[modality]);
            let (Some((train, _)), Some((test, _))) = (split(&data.train.set)?, split(&data.test.set)?) else {
                continue;
            };
            let Some(output) = self.reconstruct(&test.only(&[modality]), modality)? else { continue };
            if let ValueType::Tokens(vocab_size) = input.value_type {
                metrics.push(self.token_accuracy(modality, input, &train, &test, &output, vocab_size)?);
                continue;
            }
            let output = if input.value_type == ValueType::Binary { output.sigmoid()? } else { output };
            let output = output.flatten(1, -1)?;
            if self.config.model.get("kind").and_then(toml::Value::as_str) == Some("mae") {
                metrics.extend(self.masked_mse(modality, &train, &test, &output)?);
            } else {
                metrics.push(self.reconstruction_mse(modality, &train, &test, &output)?);
            }
        }
        Ok(metrics)
    }

    fn num_components(&self, train: &InputSet) -> i64 {
        self.learner.dim().min(train.rows - 1)
    }

    fn reconstruction_mse(
        &self,
        modality: &Modality,
        train: &InputSet,
        test: &InputSet,
        output: &Tensor,
    ) -> Result<Metric> {
        let (x, y) = (flat(train, modality)?, flat(test, modality)?);
        let pca = Pca::fit(&x, self.num_components(train))?;
        let restored = pca.inverse_transform(&pca.transform(&y)?)?;
        Ok(Metric::new("reconstruction_mse", mse(&y, output)?)
            .lower_is_better()
            .with_scope(modality.name())
            .with_baseline("pca", mse(&y, &restored)?)
            .with_baseline("mean", mse(&y, &x.mean_dim(&[0], true)?)?))
    }

    /// A masked autoencoder returns visible elements unchanged; only the masked ones are compared.
    fn masked_mse(
        &self,
        modality: &Modality,
        train: &InputSet,
        test: &InputSet,
        output: &Tensor,
    ) -> Result<[Metric; 2]> {
        let (x, y) = (flat(train, modality)?, flat(test, modality)?);
        let visible = output.eq(&y)?.to_dtype(DType::F32)?;
        let masked = visible.neg()?.add_scalar(1.0)?;
        let ratio = masked.mean()?.to_f64()?;
        let masked_mse = |values: &Tensor| -> Result<f64> {
            Ok(y.sub(values)?.pow(2.0)?.mul(&masked)?.mean()?.to_f64()? / ratio.max(1e-9))
        };
        let pca = Pca::fit(&x, self.num_components(train))?;
        let imputed = pca.impute(&y.mul(&visible)?, &visible)?;
        let metric = Metric::new("masked_reconstruction_mse", masked_mse(output)?)
            .lower_is_better()
            .with_scope(modality.name())
            .with_baseline("pca_imputation", masked_mse(&imputed)?)
            .with_baseline("mean", masked_mse(&x.mean_dim(&[0], true)?)?);
        Ok([metric, Metric::new("mask_ratio", ratio).with_scope(modality.name())])
    }

    /// Tokens that are reproduced, padding and the first token left out; principal components of one-hot vectors are
    /// the baseline.
    fn token_accuracy(
        &self,
        modality: &Modality,
        input: &RepresentationInput,
        train: &InputSet,
        test: &InputSet,
        output: &Tensor,
        vocab_size: i64,
    ) -> Result<Metric> {
        let one_hot = |set: &InputSet| -> Result<Tensor> {
            Ok(set.parts[modality].0.values.one_hot(vocab_size)?.to_dtype(DType::F32)?.flatten(1, -1)?)
        };
        let (x, y, tokens) = (one_hot(train)?, one_hot(test)?, &test.parts[modality].0.values);
        let pca = Pca::fit(&x, self.num_components(train))?;
        let length = input.numel;
        let argmax = |scores: &Tensor| scores.reshape(&[-1, length, vocab_size])?.argmax(2);
        let restored = argmax(&pca.inverse_transform(&pca.transform(&y)?)?)?;
        let most_frequent = argmax(&x.mean_dim(&[0], true)?)?.expand(&tokens.shape())?;
        let accuracy = |predicted: &Tensor| -> Result<f64> {
            let counted = tokens.gt_scalar(1.5)?;
            let correct = predicted.eq(tokens)?.logical_and(&counted)?.to_dtype(DType::F32)?.sum()?.to_f64()?;
            Ok(correct / counted.to_dtype(DType::F32)?.sum()?.to_f64()?.max(1.0))
        };
        Ok(Metric::new("token_accuracy", accuracy(output)?)
            .with_scope(modality.name())
            .with_baseline("pca", accuracy(&restored)?)
            .with_baseline("most_frequent_token", accuracy(&most_frequent)?))
    }
}
