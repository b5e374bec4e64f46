//! Evaluation of captions, with the caption of the nearest training value as the baseline.

use super::{features::InputFeatures, model::Captioning};
use crate::{
    Error, ProgressFn, Result,
    batch::{RowBatch, texts},
    metrics::{CaptionScorers, Metrics, Synonyms, caption_metrics, clip_score},
    report::Example,
    task::EvaluationReport,
};
use mm_core::{Device, Features, Modality, Pooling, Source, Tensor, distributed::map_over_ranks, no_grad};
use mm_data::{FailedSample, Manifest, Split, collate};
use mm_reason::generate::LogitsProcessors;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;

/// Rows that are captioned together.
const BATCH_SIZE: usize = 32;
/// Rows that a report shows.
const NUM_EXAMPLES: usize = 20;

/// The result of an evaluation.
#[derive(Debug, Clone)]
pub struct CaptioningEvaluation {
    /// The split.
    pub split: Split,
    /// The metrics. The baseline `nearest_neighbor` is the caption of the nearest training value, by the mean of the
    /// same features.
    pub metrics: Metrics,
    /// Number of evaluated rows.
    pub rows: usize,
    /// Values that could not be read.
    pub failed: Vec<FailedSample>,
    /// Some rows with their captions.
    pub(super) examples: Vec<Example>,
}

impl CaptioningEvaluation {
    /// The metrics as JSON and as a table.
    pub fn report(&self) -> EvaluationReport {
        EvaluationReport::new(self.split, self.rows, self.metrics.clone()).with_failed(&self.failed)
    }
}

/// The captions of some rows.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct RowCaptions {
    /// The rows that could be read.
    rows: Vec<usize>,
    captions: Vec<String>,
    failed: Vec<FailedSample>,
}

impl RowCaptions {
    /// Metrics against the reference captions.
    pub(super) fn metrics(&self, manifest: &Manifest, synonyms: Option<&Synonyms>) -> Metrics {
        caption_metrics(&self.captions, &references(manifest, &self.rows), synonyms)
    }
}

fn references(manifest: &Manifest, rows: &[usize]) -> Vec<Vec<String>> {
    rows.iter().map(|r| texts(manifest, *r, &Modality::TEXT).map(ToOwned::to_owned).collect()).collect()
}

impl Captioning {
    /// Captions rows; those that cannot be read are left out. Processes that train together have a part of the rows each.
    pub(super) fn caption_rows(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        input: &InputFeatures,
    ) -> Result<RowCaptions> {
        let batches = map_over_ranks(rows.chunks(BATCH_SIZE), |rows| {
            let mut batch = RowCaptions::default();
            batch.failed = self.for_each_batch(manifest, rows, input, |read, features| {
                let found = self.generate(&features, &self.generation(), &LogitsProcessors::default())?;
                batch.captions.extend(found.into_iter().map(|g| g.text));
                batch.rows.extend(read);
                Ok(())
            })?;
            Ok::<_, Error>(batch)
        })?;
        let mut out = RowCaptions::default();
        for RowCaptions { rows, captions, failed } in batches {
            out.rows.extend(rows);
            out.captions.extend(captions);
            out.failed.extend(failed);
        }
        Ok(out)
    }

    /// Calls `visit` with the rows of each batch that could be read and their features `[rows, positions, dim]`;
    /// returns what failed.
    fn for_each_batch(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        input: &InputFeatures,
        mut visit: impl FnMut(Vec<usize>, Features) -> Result<()>,
    ) -> Result<Vec<FailedSample>> {
        let (processor, mut failed) = (input.processor.as_ref(), Vec::new());
        for chunk in rows.chunks(BATCH_SIZE) {
            let batch = RowBatch::read(manifest, chunk, &self.modality, processor);
            failed.extend(batch.failed);
            if !batch.samples.is_empty() {
                let values = collate(&batch.samples, processor)?.to_device(self.params.device())?;
                let features = no_grad(|| self.encode(&values, input.precomputed, false))?;
                visit(batch.positions.iter().map(|n| chunk[*n]).collect(), features)?;
            }
        }
        Ok(failed)
    }

    /// Mean features `[rows, dim]` of unit norm of the rows that can be read.
    fn mean_features(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        input: &InputFeatures,
    ) -> Result<(Vec<usize>, Tensor)> {
        let (mut all, mut vectors) = (Vec::new(), Vec::new());
        self.for_each_batch(manifest, rows, input, |read, features| {
            vectors.push(features.pool(Pooling::Mean)?.to_device(Device::Cpu)?);
            all.extend(read);
            Ok(())
        })?;
        Ok((all, Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?.normalize()?))
    }

    /// The first caption of the nearest training row of each row.
    fn nearest_captions(&self, manifest: &Manifest, rows: &[usize], input: &InputFeatures) -> Result<Vec<String>> {
        let (train, gallery) = self.mean_features(manifest, &manifest.rows_in_split(Split::Train), input)?;
        let (_, queries) = self.mean_features(manifest, rows, input)?;
        let nearest: Vec<i64> = queries.matmul(&gallery.transpose(0, 1)?)?.argmax(1)?.to_vec()?;
        let caption =
            |n: &i64| texts(manifest, train[*n as usize], &Modality::TEXT).next().unwrap_or_default().to_owned();
        Ok(nearest.iter().map(caption).collect())
    }

    /// Evaluates a split of its data set, with the available scorers.
    pub fn evaluate_split(
        &self,
        split: Split,
        scorers: CaptionScorers<'_>,
        on_progress: ProgressFn<'_>,
    ) -> Result<CaptioningEvaluation> {
        let manifest = self.dataset()?;
        let rows = crate::rows_in_split(&manifest, split)?;
        let input = self.input_features(&manifest, &AtomicBool::new(false), on_progress)?;
        let found = self.caption_rows(&manifest, &rows, &input)?;
        let mut metrics = found.metrics(&manifest, scorers.synonyms);
        let nearest = self.nearest_captions(&manifest, &found.rows, &input)?;
        let references = references(&manifest, &found.rows);
        let mut baseline = caption_metrics(&nearest, &references, scorers.synonyms);
        if let Some(clip) = scorers.clip {
            if self.modality != Modality::IMAGE {
                return Err(Error::invalid("--clip", format!("captions of {}", self.modality), "captions of images"));
            }
            let images: Vec<Source> =
                found.rows.iter().map(|r| manifest.rows[*r].values[&self.modality][0].clone()).collect();
            metrics.extend(clip_score(clip, &images, &found.captions, &references)?);
            baseline.extend(clip_score(clip, &images, &nearest, &references)?);
        }
        metrics.set_baselines("nearest_neighbor", &baseline);
        let example = |n: usize| Example {
            id: manifest.rows[found.rows[n]].id.clone(),
            question: String::new(),
            output: found.captions[n].clone(),
            details: vec![
                format!("nearest neighbor: {}", nearest[n]),
                format!("references: {}", references[n].join(" / ")),
            ],
        };
        let examples = (0..found.rows.len().min(NUM_EXAMPLES)).map(example).collect();
        Ok(CaptioningEvaluation { split, metrics, rows: found.rows.len(), failed: found.failed, examples })
    }
}
