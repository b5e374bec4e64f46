//! Cross-modal retrieval: one tower for each modality, with a projection into a shared space where matching values are
//! close, trained contrastively over every pair of modalities that a row has.

mod attention_map;
mod auxiliary;
mod build;
mod chunks;
mod config;
mod cross_attention;
mod embed;
mod evaluate;
mod fit;
mod model;
mod objective;
mod projection;
mod report;
mod search;
mod transcript_ngram;
mod transcripts;

pub use attention_map::AttentionMap;
pub use config::{
    CrossAttentionConfig, ProjectionConfig, RetrievalConfig, SoftTargetsConfig, TowerConfig, TranscriptNgramConfig,
};
pub use embed::{EmbeddedSplit, Entry};
pub use evaluate::{RetrievalEvaluation, direction_metrics};
pub use model::Retrieval;
pub use search::{FoundValue, SearchOptions};
pub use transcripts::TextMatch;

use crate::{
    Result,
    config::{parse_task, to_value},
    embedding::{Embedder, run_fingerprint},
    inputs::complete_encoder,
    metrics::RetrievalMetrics,
    task::{EvaluationReport, FitContext, FitOutcome, ProgressFn, TaskContext, TaskModel, TaskSpec},
};
use mm_core::{Modality, Params, Pooling, Processor, Tensor};
use mm_data::{Manifest, Split};
use mm_train::Run;
use serde_json::json;
use std::{path::Path, sync::Arc};

/// The name that configs give as `task`.
pub const TASK: &str = "retrieval";

/// The command that uses a trained run.
const USAGE: &str = "mm search";

/// The task, to be registered.
pub fn spec() -> TaskSpec {
    TaskSpec {
        name: TASK,
        description: "find values of one modality by a value of another",
        usage: USAGE,
        parse: |value| parse_task::<RetrievalConfig>(value).map(drop),
        resolve: |value, base_dir, context, _| resolve(value, base_dir, context),
        build: |value, base_dir, context| {
            Ok(Box::new(Retrieval::new(parse_task(value)?, base_dir, context.encoders, context.device)?))
        },
        load: |run, context| Ok(Box::new(Retrieval::load(run, context)?)),
        report: report::build,
        owns_folder: |_| false,
    }
}

/// Completes encoders with what they compute from the training values (statistics, a vocabulary), so that a run does
/// not need its training data again.
fn resolve(value: &mut toml::Value, base_dir: &Path, context: &TaskContext<'_>) -> Result<()> {
    let mut config: RetrievalConfig = parse_task(value)?;
    if !config.towers.values().any(|tower| context.encoders.is_incomplete(&tower.encoder)) {
        return Ok(());
    }
    let manifest = Manifest::open(&config.common.data, &config.common.base_dir_or(base_dir))?;
    for (name, tower) in &mut config.towers {
        complete_encoder(&mut tower.encoder, &Modality::from(name.as_str()), &manifest, context.encoders)?;
    }
    *value = to_value(&config)?;
    Ok(())
}

impl TaskModel for Retrieval {
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

    fn evaluate(&self, split: Split, _: &TaskContext<'_>, on_progress: ProgressFn<'_>) -> Result<EvaluationReport> {
        let manifest = self.dataset()?;
        let (embedded, evaluation) = self.evaluate_split(&manifest, split, on_progress)?;
        let rows = embedded.values().map(|e| e.entries.len()).max().unwrap_or(0);
        let mut report = EvaluationReport::new(split, rows, evaluation.metrics()).with_failed(&evaluation.failed);
        let counts = |m: &RetrievalMetrics| json!({"queries": m.queries, "candidates": m.gallery});
        report.json["galleries"] = evaluation.directions.iter().map(|(d, m)| (d.clone(), counts(m))).collect();
        Ok(EvaluationReport { table: evaluation.table(), ..report })
    }

    fn as_embedder(&self) -> Option<&dyn Embedder> {
        Some(self)
    }
}

impl Embedder for Retrieval {
    fn modalities(&self) -> Vec<Modality> {
        self.towers.keys().cloned().collect()
    }

    fn processor(&self, modality: &Modality) -> Result<Arc<dyn Processor>> {
        Ok(self.tower(modality)?.input.processor.clone())
    }

    fn embed_samples(&self, modality: &Modality, samples: &[Tensor], _: Option<Pooling>) -> Result<Tensor> {
        self.embed_batches(modality, samples)
    }

    fn fingerprint(&self) -> Result<String> {
        run_fingerprint(self.run.as_deref())
    }
}
