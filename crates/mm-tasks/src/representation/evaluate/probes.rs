//! Linear probes: the label predicted from the code by logistic regression.

use super::{
    super::{data::SplitData, subsets::select},
    EvalData, Representation, flat, rows_with_all,
};
use crate::{
    Result,
    metrics::{Metric, Metrics, Pca, accuracy, linear_probe, majority_class_accuracy},
};
use mm_core::{DType, InputSet, Modality, Tensor};
use mm_repr::generative::ValueType;

impl Representation {
    /// The accuracy of a linear probe on the codes of each modality, against probes on principal components and on the
    /// untrained network.
    pub(super) fn linear_probe_metrics(&self, data: &EvalData, untrained: &Self) -> Result<Metrics> {
        let classes = self.classes.len() as i64;
        let mut metrics = Metrics::new();
        if classes < 2 {
            return Ok(metrics);
        }
        for modality in self.encodable() {
            let (Some((train, train_labels)), Some((test, labels))) =
                (labeled(&data.train, modality)?, labeled(&data.test, modality)?)
            else {
                continue;
            };
            if train_labels.len() < 10 {
                continue;
            }
            let probe = |train: &Tensor, test: &Tensor| -> Result<f64> {
                Ok(accuracy(&linear_probe(train, &train_labels, test, classes)?, &labels))
            };
            let values = |set: &InputSet| -> Result<Tensor> {
                match self.value_type(modality) {
                    Some(ValueType::Tokens(vocab_size)) => {
                        let tokens = &set.parts[modality].0.values;
                        Ok(tokens.one_hot(vocab_size)?.to_dtype(DType::F32)?.flatten(1, -1)?)
                    }
                    _ => Ok(flat(set, modality)?),
                }
            };
            let (x, y) = (values(&train)?, values(&test)?);
            let pca = Pca::fit(&x, self.learner.dim().min(train.rows - 1))?;
            let metric = Metric::new("linear_probe_accuracy", probe(&self.encode(&train)?, &self.encode(&test)?)?)
                .with_scope(modality.name())
                .with_baseline("pca", probe(&pca.transform(&x)?, &pca.transform(&y)?)?)
                .with_baseline("untrained", probe(&untrained.encode(&train)?, &untrained.encode(&test)?)?)
                .with_baseline("majority_class", majority_class_accuracy(&train_labels, &labels, classes));
            metrics.push(metric);
        }
        Ok(metrics)
    }
}

/// The rows with this modality and a known class, and their classes.
fn labeled(data: &SplitData, modality: &Modality) -> Result<Option<(InputSet, Vec<i64>)>> {
    let Some((set, rows)) = rows_with_all(&data.set, &[modality])? else { return Ok(None) };
    let known: Vec<i64> = (0..rows.len() as i64).filter(|n| data.labels[rows[*n as usize]] >= 0).collect();
    if known.is_empty() {
        return Ok(None);
    }
    let labels = known.iter().map(|n| data.labels[rows[*n as usize]]).collect();
    Ok(Some((select(&set, &Tensor::from_slice(&known)?)?.only(&[modality]), labels)))
}
