//! Baselines of a predictor's accuracy: the majority class and, for question answering, the language prior and each
//! modality alone.

use super::{
    dataset::question_of,
    model::{Prediction, PreparedInputs},
    predictor::Predictor,
    target::Label,
};
use crate::{
    Result,
    batch::{BATCH_SIZE, RowBatch},
    metrics::{self, Metrics, PriorBaseline},
};
use mm_core::{DType, Device, Modality, Pooling, Tensor, no_grad, seed::Rng};
use mm_data::{Manifest, Split, collate};
use std::{collections::BTreeMap, sync::atomic::AtomicBool};

/// The linear classifiers are fitted and measured on at most this many rows.
const MAX_PROBE_ROWS: usize = 2000;

/// Seed of the choice of these rows.
const PROBE_SEED: u64 = 23;

impl Predictor {
    /// Adds baselines to the accuracy: `majority_class`, and where a run answers questions the language prior
    /// (`question_only`) and a linear classifier of each other modality without the question (`image_only`).
    ///
    /// # Errors
    /// When a value cannot be encoded.
    pub fn add_baselines(&self, metrics: &mut Metrics, manifest: &Manifest, rows: &[usize]) -> Result<()> {
        let baselines =
            self.prior_baselines(manifest, rows).into_iter().chain(self.unimodal_baselines(manifest, rows)?);
        baselines.for_each(|(name, value)| metrics.set_baseline("accuracy", &name, value));
        Ok(())
    }

    /// Accuracy of the most frequent answer of the training rows, over all and for each question.
    fn prior_baselines(&self, manifest: &Manifest, rows: &[usize]) -> BTreeMap<String, f64> {
        let label = |row: &usize| manifest.rows[*row].cells.get(self.label_column());
        let pair = |row: &usize| Some((question_of(manifest, *row), label(row)?));
        let train = manifest.rows_in_split(Split::Train);
        let prior = PriorBaseline::new(train.iter().filter_map(pair));
        let labeled: Vec<(Option<&str>, &str)> = rows.iter().filter_map(pair).collect();
        if !self.target().is_classes() || labeled.is_empty() || train.is_empty() {
            return BTreeMap::new();
        }
        let accuracy = |use_question: bool| {
            let hits = labeled.iter().filter(|(q, label)| prior.answer(q.filter(|_| use_question)) == *label).count();
            hits as f64 / labeled.len() as f64
        };
        let question_only = self.answers_questions().then(|| ("question_only".to_owned(), accuracy(true)));
        [("majority_class".to_owned(), accuracy(false))].into_iter().chain(question_only).collect()
    }

    /// Accuracy of a logistic regression on the mean features of each modality but the question's, on at most
    /// [`MAX_PROBE_ROWS`] random rows.
    fn unimodal_baselines(&self, manifest: &Manifest, rows: &[usize]) -> Result<BTreeMap<String, f64>> {
        let (model, mut baselines) = (self.first(), BTreeMap::new());
        let Some(reasoning) = &model.config.reasoning else { return Ok(baselines) };
        let labels = model.labels(manifest);
        let class =
            |row: &usize| if let Some(Label::Class(class)) = &labels[*row] { Some(*class as i64) } else { None };
        let sample = |rows: Vec<usize>| {
            let mut known: Vec<usize> = rows.into_iter().filter(|r| class(r).is_some()).collect();
            Rng::new(&[PROBE_SEED]).shuffle(&mut known);
            known.truncate(MAX_PROBE_ROWS);
            known
        };
        let (train, test) = (sample(manifest.rows_in_split(Split::Train)), sample(rows.to_vec()));
        let all = [&train[..], &test].concat();
        let inputs = model.prepare(manifest, &all, &AtomicBool::new(false), &mut |_, _, _| {})?;
        for modality in inputs.processors.keys().filter(|m| m.name() != reasoning.query) {
            let (train, train_x) = model.mean_features(manifest, &train, modality, &inputs)?;
            let (test, test_x) = model.mean_features(manifest, &test, modality, &inputs)?;
            let classes = |rows: &[usize]| rows.iter().filter_map(class).collect::<Vec<i64>>();
            let (train_y, test_y) = (classes(&train), classes(&test));
            if train_y.len() < 2 || test_y.is_empty() {
                continue;
            }
            let predicted = metrics::linear_probe(&train_x, &train_y, &test_x, self.target().classes.len() as i64)?;
            baselines.insert(format!("{modality}_only"), metrics::accuracy(&predicted, &test_y));
        }
        Ok(baselines)
    }
}

impl Prediction {
    /// The mean features `[rows, dim]` of one modality, and the rows whose value can be read.
    fn mean_features(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        modality: &Modality,
        inputs: &PreparedInputs,
    ) -> Result<(Vec<usize>, Tensor)> {
        let (branch, processor) = (&self.network.branches[modality], &inputs.processors[modality]);
        let is_precomputed = inputs.precomputed.contains(modality);
        let (mut found, mut all) = (Vec::new(), Vec::new());
        for rows in rows.chunks(BATCH_SIZE) {
            let batch = RowBatch::read(manifest, rows, modality, processor.as_ref());
            if batch.samples.is_empty() {
                continue;
            }
            let input = collate(&batch.samples, processor.as_ref())?.to_device(self.params.device())?;
            let features = no_grad(|| branch.encode(&input, is_precomputed, false)?.pool(Pooling::Mean))?;
            all.push(features.to_device(Device::Cpu)?);
            found.extend(batch.positions.iter().map(|position| rows[*position]));
        }
        let dim = all.first().map_or(Ok(1), |x| x.size(1))?;
        all.push(Tensor::zeros(&[0, dim], DType::F32, Device::Cpu)?);
        Ok((found, Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?))
    }
}
