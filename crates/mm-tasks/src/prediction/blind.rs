//! What stands beside a network that is asked about what it sees: answers without looking, and without hearing the question.

use super::{Label, Prediction, Predictor, network::Network};
use crate::{Result, metrics};
use mm_core::{Device, Modality, Pooling, Processor, Source, Tensor, no_grad, seed::Rng};
use mm_data::{Manifest, Split, collate};
use std::{collections::BTreeMap, sync::atomic::AtomicBool};

/// Rows of either side that answers without a question are learned from and measured on.
const MOST: usize = 2000;

/// What a row asks.
pub(super) fn question(manifest: &Manifest, row: usize) -> Option<&str> {
    match manifest.rows[row].values.get(&Modality::TEXT)?.first()? {
        Source::Text(text) => Some(text),
        _ => None,
    }
}

impl Predictor {
    /// Adds baselines to the accuracy: `majority_class`, and where a run answers questions the language prior (`question_only`) and a linear
    /// classifier of each other modality without the question (`image_only`).
    pub fn add_baselines(&self, metrics: &mut metrics::Metrics, manifest: &Manifest, rows: &[usize]) -> Result<()> {
        let baselines = self.blind(manifest, rows).into_iter().chain(self.unasked(manifest, rows)?);
        baselines.for_each(|(name, value)| metrics.set_baseline("accuracy", &name, value));
        Ok(())
    }

    /// Accuracy of answering rows as the training rows do most often: whatever is asked, and each question for itself.
    fn blind(&self, manifest: &Manifest, rows: &[usize]) -> BTreeMap<String, f64> {
        let (target, label) = (self.target(), self.label());
        let answer = |row: &usize| manifest.rows[*row].cells.get(label).map(String::as_str);
        let (train, asks) = (manifest.rows_in_split(Split::Train), self.first().config.reasoning.is_some());
        let pair = |row: &usize| Some((question(manifest, *row), answer(row)?));
        let prior = metrics::PriorBaseline::new(train.iter().filter_map(pair));
        let known: Vec<(Option<&str>, &str)> = rows.iter().filter_map(pair).collect();
        if !target.is_classes() || known.is_empty() || train.is_empty() {
            return BTreeMap::new();
        }
        let share = |asked: bool| {
            let hit = known.iter().filter(|(q, a)| prior.answer(q.filter(|_| asked)) == *a).count();
            hit as f64 / known.len() as f64
        };
        let question_only = asks.then(|| ("question_only".to_owned(), share(true)));
        [("majority_class".to_owned(), share(false))].into_iter().chain(question_only).collect()
    }

    /// Accuracy of a logistic regression on the mean of a modality's features that does not know what is asked, for each modality that is asked
    /// about; from at most two thousand training rows, on as many of `rows`, drawn by a seed.
    fn unasked(&self, manifest: &Manifest, rows: &[usize]) -> Result<BTreeMap<String, f64>> {
        let (model, mut figures) = (self.first(), BTreeMap::new());
        let Some(asking) = &model.config.reasoning else { return Ok(figures) };
        let labels = model.labels(manifest);
        let draw = |side: Vec<usize>| {
            let mut known: Vec<usize> =
                side.into_iter().filter(|r| matches!(labels[*r], Some(Label::Class(_)))).collect();
            Rng::new(&[23]).shuffle(&mut known);
            known.truncate(MOST);
            known
        };
        let (train, test) = (draw(manifest.rows_in_split(Split::Train)), draw(rows.to_vec()));
        let classes = |rows: &[usize]| -> Vec<i64> {
            let class = |row: &usize| match &labels[*row] {
                Some(Label::Class(class)) => Some(*class as i64),
                _ => None,
            };
            rows.iter().filter_map(class).collect()
        };
        let processors =
            model.prepare(manifest, &[&train[..], &test].concat(), &AtomicBool::new(false), &mut |_, _, _| {})?;
        for (modality, processor) in processors.iter().filter(|(m, _)| m.name() != asking.query) {
            let (train, x) = model.pooled(manifest, &train, modality, processor.as_ref())?;
            let (test, y) = model.pooled(manifest, &test, modality, processor.as_ref())?;
            let (learned, wanted) = (classes(&train), classes(&test));
            if learned.len() < 2 || wanted.is_empty() {
                continue;
            }
            let guessed = metrics::linear_probe(&x, &learned, &y, self.target().classes.len() as i64)?;
            figures.insert(format!("{modality}_only"), metrics::accuracy(&guessed, &wanted));
        }
        Ok(figures)
    }
}

impl Prediction {
    /// The mean of one modality's features for those of the rows whose values can be read, `[rows, width]`.
    fn pooled(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        modality: &Modality,
        processor: &dyn Processor,
    ) -> Result<(Vec<usize>, Tensor)> {
        let way = &self.network.ways[modality];
        let made = self.made.borrow().contains(modality);
        let (mut found, mut all) = (Vec::new(), Vec::new());
        for chunk in rows.chunks(64) {
            let read = super::samples(manifest, chunk, modality, processor);
            let (which, good): (Vec<usize>, Vec<Tensor>) =
                read.into_iter().filter_map(|(place, sample)| Some((chunk[place], sample.ok()?))).unzip();
            if !good.is_empty() {
                let input = collate(&good, processor)?.to_device(self.params.device())?;
                let features = no_grad(|| Network::encode(way, &input, made, false)?.pool(Pooling::Mean))?;
                all.push(features.to_device(Device::Cpu)?);
                found.extend(which);
            }
        }
        let width = all.first().map_or(Ok(1), |x| x.size(1))?;
        all.push(Tensor::zeros(&[0, width], mm_core::DType::F32, Device::Cpu)?);
        Ok((found, Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?))
    }
}
