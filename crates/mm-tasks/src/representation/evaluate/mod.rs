//! Evaluation of a representation on held-out rows, against simpler models: principal components of the same dimension,
//! the untrained network, the nearest neighbor, the mean.

mod cross_modal;
mod evaluator_run;
mod probes;
mod reconstruction;

use super::{
    data::{EvalData, rows_with_all},
    model::Representation,
    subsets::chunks,
};
use crate::{
    ProgressFn, Result, TaskContext,
    metrics::{Metric, Metrics},
};
use mm_core::{InputSet, Modality, Tensor, no_grad, seed::manual_seed};
use mm_data::Split;

impl Representation {
    /// Metrics on a split, and its data.
    pub(super) fn evaluate_split(
        &self,
        split: Split,
        context: &TaskContext<'_>,
        on_progress: ProgressFn<'_>,
    ) -> Result<(Metrics, EvalData)> {
        let untrained = self.untrained(context)?;
        let data = self.eval_data(split, on_progress)?;
        let metrics = no_grad(|| -> Result<Metrics> {
            let mut metrics = self.reconstruction_metrics(&data)?;
            metrics.extend(self.linear_probe_metrics(&data, &untrained)?);
            metrics.extend(self.cross_modal_metrics(&data, &untrained)?);
            metrics.extend(self.log_likelihood(&data)?);
            metrics.extend(self.evaluator_metrics(&data, context)?);
            Ok(metrics)
        })?;
        Ok((metrics, data))
    }

    /// Log-likelihood of complete rows in nats, with 64 importance samples; the evidence lower bound with one.
    fn log_likelihood(&self, data: &EvalData) -> Result<Option<Metric>> {
        let all: Vec<&Modality> = self.inputs.keys().collect();
        let Some((set, _)) = rows_with_all(&data.test.set, &all)? else { return Ok(None) };
        let mean = |samples: usize| -> Result<Option<f64>> {
            manual_seed(0);
            let (mut sum, mut count) = (0.0, 0.0);
            for chunk in chunks(&set)? {
                let Some(values) = self.learner.log_likelihood(&chunk, samples)? else { return Ok(None) };
                sum += values.sum()?.to_f64()?;
                count += chunk.rows as f64;
            }
            Ok(Some(sum / count))
        };
        let (Some(elbo), Some(value)) = (mean(1)?, mean(64)?) else { return Ok(None) };
        Ok(Some(Metric::new("log_likelihood", value).with_baseline("elbo", elbo)))
    }
}

/// The values of one modality, `[rows, elements]`.
fn flat(set: &InputSet, modality: &Modality) -> mm_core::Result<Tensor> {
    set.parts[modality].0.values.flatten(1, -1)
}

/// Mean squared difference.
fn mse(a: &Tensor, b: &Tensor) -> Result<f64> {
    Ok(a.sub(b)?.pow(2.0)?.mean()?.to_f64()?)
}
