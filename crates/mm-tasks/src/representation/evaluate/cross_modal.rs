//! Cross-modal metrics: translation, retrieval in the shared space, and whether the space separates the modalities.

use super::{EvalData, Representation, flat, mse, rows_with_all};
use crate::{
    Result,
    metrics::{Metric, Metrics, accuracy, linear_probe, retrieval_metrics, ridge_regression},
};
use mm_core::{InputSet, Modality, Tensor};
use mm_repr::generative::ValueType;

/// Ridge regression is a baseline for inputs of at most this many elements.
const MAX_RIDGE_DIM: i64 = 4096;

/// The rows with both modalities of a direction.
struct Pair<'a> {
    data: &'a EvalData,
    from: &'a Modality,
    to: &'a Modality,
    train: InputSet,
    /// Indices of the rows of `train` in the training data.
    train_rows: Vec<usize>,
    test: InputSet,
    test_rows: Vec<usize>,
}

impl<'a> Pair<'a> {
    /// `None` where there are too few rows.
    fn new(data: &'a EvalData, from: &'a Modality, to: &'a Modality) -> Result<Option<Self>> {
        let both = [from, to];
        let (Some((train, train_rows)), Some((test, test_rows))) =
            (rows_with_all(&data.train.set, &both)?, rows_with_all(&data.test.set, &both)?)
        else {
            return Ok(None);
        };
        let enough = train.rows >= 5 && test.rows >= 2;
        Ok(enough.then_some(Self { data, from, to, train, train_rows, test, test_rows }))
    }

    fn scope(&self) -> String {
        format!("{}_to_{}", self.from, self.to)
    }

    fn same_item(&self, a: usize, b: usize) -> bool {
        let row = |n: usize| &self.data.manifest.rows[self.data.test.rows[self.test_rows[n]]];
        row(a).item == row(b).item
    }

    /// The class of a test row.
    fn label(&self, n: usize) -> i64 {
        self.data.test.labels[self.test_rows[n]]
    }

    fn same_label(&self, a: usize, b: usize) -> bool {
        self.label(a) >= 0 && self.label(a) == self.label(b)
    }
}

impl Representation {
    pub(super) fn cross_modal_metrics(&self, data: &EvalData, untrained: &Self) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        for from in self.inputs.keys() {
            for to in self.inputs.keys().filter(|m| *m != from) {
                let Some(pair) = Pair::new(data, from, to)? else { continue };
                metrics.extend(self.translation_metrics(&pair)?);
                if self.learner.is_joint() {
                    metrics.extend(self.retrieval_in_space(&pair, untrained)?);
                    metrics.extend(self.cross_modal_probe(&pair)?);
                    if from < to {
                        metrics.push(self.modality_probe(&pair, untrained)?);
                    }
                }
            }
        }
        Ok(metrics)
    }

    /// One modality generated from another: its error, and its use as a query for the other's own values.
    fn translation_metrics(&self, pair: &Pair<'_>) -> Result<Vec<Metric>> {
        let has_tokens = |m: &Modality| matches!(self.value_type(m), Some(ValueType::Tokens(_)));
        if has_tokens(pair.from) || has_tokens(pair.to) {
            return Ok(Vec::new());
        }
        let Some(output) = self.reconstruct(&pair.test.only(&[pair.from]), pair.to)? else { return Ok(Vec::new()) };
        let is_binary = self.value_type(pair.to) == Some(ValueType::Binary);
        let output = if is_binary { output.sigmoid()? } else { output }.flatten(1, -1)?;
        let (x, y) = (flat(&pair.train, pair.from)?, flat(&pair.train, pair.to)?);
        let (input, target) = (flat(&pair.test, pair.from)?, flat(&pair.test, pair.to)?);
        let nearest = input.normalize()?.matmul(&x.normalize()?.transpose(0, 1)?)?.argmax(1)?;
        let mean = y.mean_dim(&[0], true)?;
        let ridge = (x.size(1)? <= MAX_RIDGE_DIM).then(|| ridge_regression(&x, &y, &input)).transpose()?;
        let mut error = Metric::new("translation_mse", mse(&target, &output)?)
            .lower_is_better()
            .with_scope(pair.scope())
            .with_baseline("mean", mse(&target, &mean)?)
            .with_baseline("nearest_neighbor", mse(&target, &y.index_select(0, &nearest)?)?);
        let centered = |x: &Tensor| -> Result<Tensor> { Ok(x.sub(&mean)?.normalize()?) };
        let gallery = centered(&target)?;
        let same = |a: usize, b: usize| pair.same_item(a, b);
        let found = retrieval_metrics(&centered(&output)?, &gallery, same)?;
        let mut recall = Metric::new("translation_recall_at_10", found.recall[2])
            .with_scope(pair.scope())
            .with_baseline("chance", found.chance[2]);
        if let Some(ridge) = &ridge {
            error = error.with_baseline("ridge_regression", mse(&target, ridge)?);
            let ridge_recall = retrieval_metrics(&centered(ridge)?, &gallery, same)?.recall[2];
            recall = recall.with_baseline("ridge_regression", ridge_recall);
        }
        Ok(vec![error, recall])
    }

    /// The codes of both modalities of the test rows, of unit norm.
    fn both_codes(&self, set: &InputSet, pair: &Pair<'_>) -> Result<[Tensor; 2]> {
        let codes = |m: &Modality| -> Result<Tensor> { Ok(self.encode(&set.only(&[m]))?.normalize()?) };
        Ok([codes(pair.from)?, codes(pair.to)?])
    }

    /// Retrieval by code: of the same item, and of the same class.
    fn retrieval_in_space(&self, pair: &Pair<'_>, untrained: &Self) -> Result<Vec<Metric>> {
        let ([a, b], [u, v]) = (self.both_codes(&pair.test, pair)?, untrained.both_codes(&pair.test, pair)?);
        let same = |a: usize, b: usize| pair.same_item(a, b);
        let (found, before) = (retrieval_metrics(&a, &b, same)?, retrieval_metrics(&u, &v, same)?);
        let mut metrics = vec![
            Metric::new("recall_at_10", found.recall[2])
                .with_scope(pair.scope())
                .with_baseline("untrained", before.recall[2])
                .with_baseline("chance", found.chance[2]),
        ];
        if self.classes.len() > 1 {
            let same = |a: usize, b: usize| pair.same_label(a, b);
            let (found, before) = (retrieval_metrics(&a, &b, same)?, retrieval_metrics(&u, &v, same)?);
            let metric = Metric::new("mean_average_precision_by_label", found.map).with_scope(pair.scope());
            metrics.push(metric.with_baseline("untrained", before.map));
        }
        Ok(metrics)
    }

    /// A linear probe trained on the codes of one modality and tested on those of the other, on rows of a known class;
    /// `None` where there are too few.
    fn cross_modal_probe(&self, pair: &Pair<'_>) -> Result<Option<Metric>> {
        let (train, labels) = known_classes(pair.train_rows.iter().map(|r| pair.data.train.labels[*r]));
        let (test, targets) = known_classes((0..pair.test_rows.len()).map(|n| pair.label(n)));
        if self.classes.len() < 2 || labels.len() < 2 || targets.is_empty() {
            return Ok(None);
        }
        let train = Tensor::from_slice(&train)?.to_device(self.params.device())?;
        let test = Tensor::from_slice(&test)?.to_device(self.params.device())?;
        let codes = self.encode(&pair.train.only(&[pair.from]))?.normalize()?.index_select(0, &train)?;
        let [from, to] = self.both_codes(&pair.test, pair)?;
        let probe = |x: &Tensor| -> Result<f64> {
            let x = x.index_select(0, &test)?;
            Ok(accuracy(&linear_probe(&codes, &labels, &x, self.classes.len() as i64)?, &targets))
        };
        let metric = Metric::new("cross_modal_probe_accuracy", probe(&to)?).with_scope(pair.scope());
        Ok(Some(metric.with_baseline("same_modality", probe(&from)?)))
    }

    /// The accuracy of a linear probe that predicts the modality of codes; in a shared space it is at chance.
    fn modality_probe(&self, pair: &Pair<'_>, untrained: &Self) -> Result<Metric> {
        let probe = |model: &Self| -> Result<f64> {
            let stack = |set: &InputSet| -> Result<(Tensor, Vec<i64>)> {
                let [a, b] = model.both_codes(set, pair)?;
                let count = set.rows as usize;
                Ok((Tensor::cat(&[&a, &b], 0)?, [vec![0; count], vec![1; count]].concat()))
            };
            let ((x, labels), (y, targets)) = (stack(&pair.train)?, stack(&pair.test)?);
            Ok(accuracy(&linear_probe(&x, &labels, &y, 2)?, &targets))
        };
        Ok(Metric::new("modality_probe_accuracy", probe(self)?)
            .lower_is_better()
            .with_scope(format!("{}_{}", pair.from, pair.to))
            .with_baseline("untrained", probe(untrained)?)
            .with_baseline("chance", 0.5))
    }
}

/// The indices of the labels that are a class, and these classes.
fn known_classes(labels: impl Iterator<Item = i64>) -> (Vec<i64>, Vec<i64>) {
    labels.enumerate().filter(|(_, label)| *label >= 0).map(|(index, label)| (index as i64, label)).unzip()
}

#[cfg(test)]
mod tests {
    #[test]
    fn rows_without_a_known_class_are_left_out() {
        assert_eq!(super::known_classes([2, -1, 0, -1].into_iter()), (vec![0, 2], vec![2, 0]));
    }
}
