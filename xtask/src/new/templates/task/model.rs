//! The model of the task: an encoder and a linear layer.

use super::config::TemplateNameConfig;
use mm_core::{BuildContext, BuiltEncoder, Input, Module, Params, Tensor, nn::Linear, no_grad, seed::manual_seed};
use mm_data::{Loader, Manifest, Split};
use mm_tasks::{
    Error, Result, TaskContext,
    config::TaskConfig,
    metrics::{Metric, Metrics},
};
use mm_train::Run;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// A number from one modality.
pub struct TemplateName {
    pub(super) params: Params,
    pub(super) encoder: BuiltEncoder,
    pub(super) config: TemplateNameConfig,
    pub(super) statistics: [f64; 2],
    head: Linear,
    base_dir: PathBuf,
}

impl TemplateName {
    /// Builds a fresh model; its weights are a function of the seed.
    ///
    /// # Errors
    /// When the config does not fit the data set, or the encoder cannot be built.
    pub fn new(mut config: TemplateNameConfig, base_dir: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let base_dir = config.common().base_dir_or(base_dir);
        config.complete(&base_dir, context.encoders)?;
        let statistics = config.statistics.ok_or_else(|| Error::invalid("statistics", "none", "mean and deviation"))?;
        manual_seed(config.common().train.seed);
        let params = Params::new(context.device);
        let scope = params.scope();
        let built = context.encoders.build(
            &config.encoder,
            &BuildContext {
                scope: scope.pp("encoder"),
                base_dir: base_dir.clone(),
                field: "encoder".into(),
                registry: context.encoders,
            },
        )?;
        let found = built.encoder.modality();
        if found != config.modality {
            let expected = format!("an encoder of {}", config.modality);
            return Err(Error::invalid("encoder", format!("an encoder of {found}"), expected));
        }
        let head = Linear::new(&scope.pp("head"), built.encoder.embedding_dim(), 1, true)?;
        Ok(Self { params, encoder: built, config, statistics, head, base_dir })
    }

    /// Loads the model of a run folder with its best weights.
    ///
    /// # Errors
    /// When the folder holds no run of this task.
    pub fn load(run: &Path, context: &TaskContext<'_>) -> Result<Self> {
        let model = Self::new(context.run_config(run)?, run, context)?;
        Run::load_weights(run, &model.params)?;
        Ok(model)
    }

    /// Standardized numbers `[batch]`.
    ///
    /// # Errors
    /// When the input does not fit the encoder.
    pub fn forward(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        self.head.forward(&self.encoder.encoder.embed(input, train)?, train)?.squeeze(1)
    }

    /// The predicted numbers of some rows, and those that are true; rows whose value cannot be read are left out.
    ///
    /// # Errors
    /// When the data cannot be read.
    pub(super) fn predict(&self, manifest: &Arc<Manifest>, rows: Vec<usize>) -> Result<Vec<(f64, f64)>> {
        let loader = Loader::builder(manifest.clone())
            .rows(rows)
            .processor(self.config.modality.clone(), self.encoder.processor.clone())
            .config(self.config.common().loader.clone())
            .build()?;
        let [mean, deviation] = self.statistics;
        let mut out = Vec::new();
        for batch in loader.epoch(0, 0) {
            let batch = batch?;
            let Some(part) = batch.modalities.get(&self.config.modality) else { continue };
            let input = part.input.to_device(self.params.device())?;
            let predicted = no_grad(|| self.forward(&input, false))?.to_vec::<f32>()?;
            for (row, value) in part.rows.iter().zip(predicted) {
                let truth = self.config.number(&manifest.rows[batch.rows[*row]]);
                out.extend(truth.map(|truth| (f64::from(value) * deviation + mean, truth)));
            }
        }
        Ok(out)
    }

    /// The data set that the config names.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn dataset(&self) -> Result<Manifest> {
        Ok(Manifest::open(&self.config.common().data, &self.base_dir)?)
    }

    /// Metrics on a split, next to those of the mean of the training rows.
    ///
    /// # Errors
    /// When the data cannot be read, or the split has no row with a number.
    pub fn metrics(&self, split: Split) -> Result<Metrics> {
        let manifest = Arc::new(self.dataset()?);
        let predicted = self.predict(&manifest, self.config.rows(&manifest, split)?)?;
        let count = predicted.len().max(1) as f64;
        let mean_error = |error: &dyn Fn(&(f64, f64)) -> f64| predicted.iter().map(error).sum::<f64>() / count;
        let [mean, _] = self.statistics;
        let (mae, simple) = (mean_error(&|(p, t)| (p - t).abs()), mean_error(&|(_, t)| (mean - t).abs()));
        let mut metrics = Metrics::new();
        metrics.push(Metric::new("mae", mae).with_baseline("mean", simple));
        metrics.insert("rmse", mean_error(&|(p, t)| (p - t).powi(2)).sqrt());
        Ok(metrics)
    }
}
