//! Generated images as a retrieval run ranks them by the text that they were generated from (`evaluator_run`).

use super::{EvalData, Representation, rows_with_all};
use crate::{
    Error, Result, TaskContext,
    batch::BATCH_SIZE,
    embedding::Embedder,
    metrics::{Metric, Metrics, RetrievalMetrics, retrieval_metrics},
    report::save_png,
    retrieval::Retrieval,
};
use mm_core::{Modality, Source, Tensor, seed::manual_seed};

impl Representation {
    pub(super) fn evaluator_metrics(&self, data: &EvalData, context: &TaskContext<'_>) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        let Some(run) = &self.config.evaluator_run else { return Ok(metrics) };
        let evaluator = Retrieval::load(&self.base_dir.join(run), context)?;
        let both = [&Modality::IMAGE, &Modality::TEXT];
        let Some((test, rows)) = rows_with_all(&data.test.set, &both)? else { return Ok(metrics) };
        let Some(decoder) = self.learner.decoder() else { return Ok(metrics) };
        manual_seed(0);
        let condition = test.only(&[&Modality::TEXT]);
        let Some(codes) = decoder.sample_prior(test.rows, Some(&condition))? else { return Ok(metrics) };
        let images = decoder.decode(&codes, &Modality::IMAGE)?;
        let folder = tempfile::tempdir().map_err(|e| Error::file(std::env::temp_dir(), e))?;
        let mut generated = Vec::new();
        for n in 0..rows.len() {
            let path = folder.path().join(format!("{n}.png"));
            save_png(&images.narrow(0, n as i64, 1)?, 1, &path)?;
            generated.push(Source::Path(path));
        }
        let row = |n: usize| &data.manifest.rows[data.test.rows[rows[n]]];
        let sources = |m: &Modality| -> Vec<Source> {
            (0..rows.len()).filter_map(|n| row(n).values.get(m)?.first().cloned()).collect()
        };
        let (texts, real) = (sources(&Modality::TEXT), sources(&Modality::IMAGE));
        let text = |s: &Source| if let Source::Text(t) = s { t.to_lowercase() } else { String::new() };
        let rank = |images: &[Source]| -> Result<RetrievalMetrics> {
            let embed = |m: &Modality, sources: &[Source]| -> Result<Tensor> {
                let batches = sources.chunks(BATCH_SIZE).map(|c| evaluator.embed(m, c)).collect::<Result<Vec<_>>>()?;
                Ok(Tensor::cat(&batches.iter().collect::<Vec<_>>(), 0)?)
            };
            let (images, vectors) = (embed(&Modality::IMAGE, images)?, embed(&Modality::TEXT, &texts)?);
            retrieval_metrics(&images, &vectors, |a, b| text(&texts[a]) == text(&texts[b]))
        };
        let (found, real) = (rank(&generated)?, rank(&real)?);
        let scope = "generated_image_to_text";
        metrics.push(
            Metric::new("recall_at_10", found.recall[2])
                .with_scope(scope)
                .with_baseline("real_images", real.recall[2])
                .with_baseline("chance", found.chance[2]),
        );
        metrics.push(
            Metric::new("median_rank", found.median_rank)
                .with_scope(scope)
                .with_baseline("real_images", real.median_rank)
                .with_baseline("chance", (found.gallery as f64 + 1.0) / 2.0),
        );
        Ok(metrics)
    }
}
