//! Evaluation: generated texts or chosen labels against the targets, with the language prior as the baseline.

use super::model::{Finetuning, question, targets};
use crate::{
    Error, Result,
    batch::failed_sample,
    metrics::{
        AnsweredRow, Metrics, PriorBaseline, answer_metrics, caption_metrics, normalize_answer, word_error_rate,
    },
    report::Example,
    task::EvaluationReport,
};
use mm_core::{Modality, Source};
use mm_data::{FailedSample, Manifest, Split};
use mm_reason::generate::GenerationConfig;
use std::collections::BTreeMap;

/// Inputs of a classifier that are answered together.
const BATCH_SIZE: usize = 32;
/// Rows that a report shows.
const NUM_EXAMPLES: usize = 20;

/// The result of an evaluation.
#[derive(Debug, Clone)]
pub struct FinetuningEvaluation {
    /// The split.
    pub split: Split,
    /// The metrics. The baseline `language_prior` is the most frequent training answer to each question (the most
    /// frequent text where there are no questions).
    pub metrics: Metrics,
    /// Number of evaluated rows.
    pub rows: usize,
    /// Values that could not be read.
    pub failed: Vec<FailedSample>,
    /// Some rows with their outputs.
    pub(super) examples: Vec<Example>,
}

impl FinetuningEvaluation {
    /// The metrics as JSON and as a table.
    pub fn report(&self) -> EvaluationReport {
        EvaluationReport::new(self.split, self.rows, self.metrics.clone()).with_failed(&self.failed)
    }
}

/// The outputs of some rows.
pub(super) struct RowOutputs {
    /// Rows and their texts, sorted by row.
    pub(super) texts: Vec<(usize, String)>,
    failed: Vec<FailedSample>,
}

impl RowOutputs {
    fn push(&mut self, manifest: &Manifest, row: usize, modality: &Modality, output: Result<String>) {
        match output {
            Ok(text) => self.texts.push((row, text)),
            Err(error) => self.failed.push(failed_sample(&manifest.rows[row], modality, &error)),
        }
    }
}

impl Finetuning {
    /// The output of each row; rows that cannot be read are left out.
    pub(super) fn generate_rows(&self, manifest: &Manifest, rows: &[usize]) -> Result<RowOutputs> {
        let mut out = RowOutputs { texts: Vec::new(), failed: Vec::new() };
        if self.loaded.pipeline.can_generate() {
            self.generate_texts(manifest, rows, &mut out)?;
        } else {
            self.classify_rows(manifest, rows, &mut out);
        }
        out.texts.sort_by_key(|(row, _)| *row);
        Ok(out)
    }

    fn source(&self, manifest: &Manifest, row: usize) -> Source {
        manifest.rows[row].values[&self.modality][0].clone()
    }

    fn generate_texts(&self, manifest: &Manifest, rows: &[usize], out: &mut RowOutputs) -> Result<()> {
        let pipeline = &self.loaded.pipeline;
        let config = GenerationConfig {
            max_new_tokens: self.config.max_length.count(),
            max_length: None,
            num_beams: self.config.num_beams.count(),
            ..pipeline.generation.clone()
        };
        for chunk in rows.chunks(pipeline.max_batch_size()) {
            let sources: Vec<Source> = chunk.iter().map(|row| self.source(manifest, *row)).collect();
            let media = pipeline.encode_media_each_for_training(&self.modality, &sources)?;
            let requests = chunk.iter().zip(&media).filter_map(|(row, media)| {
                Some((media.as_ref().ok().map(Some)?, self.request(question(manifest, *row))))
            });
            let requests: Vec<_> = requests.collect();
            let mut answers = pipeline.answer_batch(&requests, &[], &config, &|_| false).into_iter();
            for (row, media) in chunk.iter().zip(media) {
                let answer = media.and_then(|_| answers.next().unwrap_or_else(|| Ok(Vec::new())));
                let best = answer.map(|found| found.into_iter().next().map(|a| a.answer).unwrap_or_default());
                out.push(manifest, *row, &self.modality, best.map_err(Error::from));
            }
        }
        Ok(())
    }

    /// Rows with the same question are answered together.
    fn classify_rows(&self, manifest: &Manifest, rows: &[usize], out: &mut RowOutputs) {
        let mut by_question: BTreeMap<Option<&str>, Vec<usize>> = BTreeMap::new();
        for row in rows {
            by_question.entry(question(manifest, *row)).or_default().push(*row);
        }
        for (question, rows) in by_question {
            for chunk in rows.chunks(BATCH_SIZE) {
                let sources: Vec<Source> = chunk.iter().map(|row| self.source(manifest, *row)).collect();
                if let Ok(labels) = self.classify(&sources, question) {
                    chunk.iter().zip(labels).for_each(|(row, l)| out.push(manifest, *row, &self.modality, Ok(l)));
                    continue;
                }
                // One value that cannot be read, or has another size, must not fail the others.
                for (row, source) in chunk.iter().zip(&sources) {
                    let label = self.classify(std::slice::from_ref(source), question);
                    let label = label.map(|l| l.into_iter().next().unwrap_or_default());
                    out.push(manifest, *row, &self.modality, label);
                }
            }
        }
    }

    /// The label of each value.
    fn classify(&self, sources: &[Source], question: Option<&str>) -> Result<Vec<String>> {
        let pipeline = &self.loaded.pipeline;
        let media = pipeline.encode_media_for_training(&self.modality, sources)?;
        let best: Vec<i64> = pipeline.answer_logits(&media, self.request(question))?.argmax(1)?.to_vec()?;
        Ok(best.into_iter().filter_map(|n| pipeline.labels.get(n as usize).cloned()).collect())
    }

    /// Metrics of the texts of some rows.
    pub(super) fn text_metrics(&self, manifest: &Manifest, outputs: &[(usize, String)]) -> Metrics {
        if self.config.answer_column.is_none() {
            let texts: Vec<String> = outputs.iter().map(|(_, t)| t.clone()).collect();
            let references: Vec<Vec<String>> =
                outputs.iter().map(|(r, _)| targets(manifest, *r).map(ToOwned::to_owned).collect()).collect();
            let mut metrics = caption_metrics(&texts, &references, None);
            if self.modality == Modality::AUDIO {
                let rate = word_error_rate(&texts, &references);
                metrics.insert("word_error_rate", rate);
                metrics.insert("word_accuracy", 1.0 - rate);
            }
            return metrics;
        }
        let is_correct = |(row, text): &&(usize, String)| {
            targets(manifest, *row).any(|a| normalize_answer(a) == normalize_answer(text))
        };
        let accuracy = outputs.iter().filter(is_correct).count() as f64 / outputs.len().max(1) as f64;
        let mut metrics = Metrics::new();
        metrics.insert("accuracy", accuracy);
        metrics.extend(answer_metrics(outputs.iter().map(|(row, text)| AnsweredRow {
            predicted: text,
            label: targets(manifest, *row).next(),
            question: question(manifest, *row),
            cells: &manifest.rows[*row].cells,
        })));
        metrics
    }

    /// Evaluates a split of its data set.
    pub fn evaluate_split(&self, split: Split) -> Result<FinetuningEvaluation> {
        let manifest = self.dataset()?;
        let rows = crate::rows_in_split(&manifest, split)?;
        let RowOutputs { texts, failed } = self.generate_rows(&manifest, &rows)?;
        let mut metrics = self.text_metrics(&manifest, &texts);
        let train = manifest.rows_in_split(Split::Train);
        let pairs = train.iter().flat_map(|r| targets(&manifest, *r).map(|a| (question(&manifest, *r), a)));
        let prior = PriorBaseline::new(pairs);
        let guess = |(row, _): &(usize, String)| (*row, prior.answer(question(&manifest, *row)).to_owned());
        let guesses: Vec<(usize, String)> = texts.iter().map(guess).collect();
        metrics.set_baselines("language_prior", &self.text_metrics(&manifest, &guesses));
        let example = |(row, text): &(usize, String)| Example {
            id: manifest.rows[*row].id.clone(),
            question: question(&manifest, *row).unwrap_or_default().to_owned(),
            output: text.clone(),
            details: vec![format!("target: {}", targets(&manifest, *row).collect::<Vec<_>>().join(" / "))],
        };
        // Spread over the rows, since neighboring rows may be about the same image.
        let step = (texts.len() / NUM_EXAMPLES).max(1);
        let examples = texts.iter().step_by(step).take(NUM_EXAMPLES).map(example).collect();
        Ok(FinetuningEvaluation { split, metrics, rows: texts.len(), failed, examples })
    }
}
