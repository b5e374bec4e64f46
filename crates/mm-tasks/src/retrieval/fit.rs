//! Training of a retrieval model.

use super::{evaluate::direction_metrics, model::Retrieval};
use crate::{
    Result,
    fit::{TaskTrainer, TrainingData, run_training},
    task::{FitContext, FitOutcome},
};
use mm_core::{ChunkedLoss, LossOutput, Modality, Params, Processor, TrainingObjective, distributed::rank_zero_first};
use mm_data::{Batch, Manifest, Split};
use mm_train::{EvalMetrics, Run};
use std::{collections::BTreeMap, sync::Arc};

/// The metric that selects the best weights: the mean of recall at 10 over all directions.
const METRIC: &str = "recall_at_10";

struct RetrievalTrainer<'a> {
    model: &'a Retrieval,
    manifest: &'a Manifest,
    processors: &'a BTreeMap<Modality, Arc<dyn Processor>>,
}

impl TrainingObjective<Batch> for RetrievalTrainer<'_> {
    fn loss(&self, batch: &Batch, train: bool) -> mm_core::Result<Option<LossOutput>> {
        self.model.loss(batch, train)
    }

    fn chunks<'b>(&'b self, batch: &'b Batch) -> mm_core::Result<Option<Box<dyn ChunkedLoss + 'b>>> {
        self.model.chunks(batch)
    }
}

impl TaskTrainer for RetrievalTrainer<'_> {
    fn params(&self) -> &Params {
        &self.model.params
    }

    fn metric(&self) -> &str {
        METRIC
    }

    fn evaluate(&self) -> Result<Option<EvalMetrics>> {
        if self.manifest.rows_in_split(Split::Valid).is_empty() {
            return Ok(None);
        }
        let embedded = self.model.embed_split_with(self.manifest, Split::Valid, self.processors, &mut Vec::new())?;
        let found = direction_metrics(&embedded, Split::Valid)?;
        let mean = found.directions.values().map(|m| m.recall[2]).sum::<f64>() / found.directions.len() as f64;
        let mut values = BTreeMap::from([(METRIC.to_owned(), mean)]);
        for (direction, metrics) in &found.directions {
            values.insert(format!("{direction}_recall_at_1"), metrics.recall[0]);
            values.insert(format!("{direction}_recall_at_10"), metrics.recall[2]);
        }
        Ok(Some(values))
    }
}

/// Trains a model on its data set into a run folder.
pub(super) fn fit(model: &Retrieval, manifest: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome> {
    let manifest = Arc::new(manifest);
    let processors = rank_zero_first(|| model.prepare(&manifest, context.stop, &mut *context.on_progress))?;
    if let Some(transcript_ngram) = &model.transcript_ngram {
        transcript_ngram.set_transcripts(&model.dataset_with_all_texts(transcript_ngram)?)?;
    }
    let data = TrainingData {
        manifest: manifest.clone(),
        rows: manifest.rows_in_split(Split::Train),
        processors: processors.clone(),
        loader: model.config.common.loader.clone(),
    };
    let trainer = RetrievalTrainer { model, manifest: &manifest, processors: &processors };
    let outcome = run_training(&trainer, &model.config.common, data, run, context)?;
    if !outcome.training.stopped {
        model.save_memory(&manifest, &processors, run.folder())?;
    }
    Ok(outcome)
}
