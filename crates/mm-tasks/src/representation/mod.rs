//! Representation learning: an autoencoder or a GAN of mm-repr on the modalities of a data set, evaluated on held-out
//! rows against simpler models.

mod config;
mod data;
mod encoder;
mod evaluate;
mod fit;
mod model;
mod report;
mod subsets;

pub use config::RepresentationConfig;
pub use data::{EvalData, SplitData};
pub(crate) use encoder::register;
pub use model::Representation;

use crate::{
    Result,
    config::{parse_task, to_value},
    embedding::{Embedder, run_fingerprint},
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec},
};
use mm_core::{Modality, Params, Pooling, Processor, Tensor};
use mm_data::{Manifest, Split};
use mm_train::Run;
use std::{path::Path, sync::Arc};

/// The name that configs give as `task`.
pub const TASK: &str = "representation";

/// The command that uses a trained run.
const USAGE: &str = "mm embed";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "learn a representation of one or several modalities",
        usage: USAGE,
        parse: |value| parse_task::<RepresentationConfig>(value).map(drop),
        resolve: |value, base_dir, context, _| resolve(value, base_dir, context),
        build: |value, base_dir, context| {
            Ok(Box::new(Representation::new(parse_task(value)?, base_dir, context.encoders, context.device)?))
        },
        load: |run, context| Ok(Box::new(Representation::load(run, context)?)),
        report: report::build,
        owns_folder: |_| false,
    }
}

/// Writes what is fitted on the training rows into a config, so that a run no longer depends on its manifest.
fn resolve(value: &mut toml::Value, base_dir: &Path, context: &TaskContext<'_>) -> Result<()> {
    let mut config: RepresentationConfig = parse_task(value)?;
    let base_dir = config.common.base_dir_or(base_dir);
    config.fit_inputs(&base_dir)?;
    config.complete_encoders(&base_dir, context.encoders)?;
    *value = to_value(&config)?;
    Ok(())
}

impl TaskModel for Representation {
    fn task(&self) -> &'static str {
        TASK
    }

    fn usage(&self) -> &'static str {
        USAGE
    }

    fn params(&self) -> &Params {
        &self.params
    }

    fn dataset(&self) -> Result<Manifest> {
        self.dataset()
    }

    fn fit(&self, dataset: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
        fit::fit(self, dataset, run, context)
    }

    fn evaluate(
        &self,
        split: Split,
        context: &TaskContext<'_>,
        on_progress: ProgressFn<'_>,
    ) -> Result<EvaluationReport> {
        let (metrics, data) = self.evaluate_split(split, context, on_progress)?;
        let unknown = data.unknown_labels();
        if unknown > 0 {
            tracing::warn!("{unknown} rows have a label that training did not have; they are left out of the probes");
        }
        // Training rows are those of the probes and baselines.
        let mut failed = [data.test.failed, data.train.failed].concat();
        failed.sort();
        failed.dedup();
        Ok(EvaluationReport::new(split, data.test.rows.len(), metrics).with_failed(&failed))
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }
}

impl Embedder for Representation {
    fn modalities(&self) -> Vec<Modality> {
        self.encodable().cloned().collect()
    }

    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>> {
        Ok(self.input(modality)?.branch.processor.clone())
    }

    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], _: Option<Pooling>) -> Result<Tensor> {
        self.encode_samples(modality, samples)
    }

    fn fingerprint(&self) -> Result<String> {
        run_fingerprint(self.run.as_deref())
    }
}
