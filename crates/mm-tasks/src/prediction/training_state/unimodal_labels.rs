//! Labels of single modalities that are generated during training (Self-MM).

use super::{
    super::target::{Label, Problem, Target},
    FUSED,
};
use mm_core::{DType, Device, Modality, Result, Tensor};
use mm_fusion::training::{polarity, unimodal_labels};
use std::collections::BTreeMap;

/// Representations of all training rows under one head, as of their last batch.
struct FeatureBank {
    dim: usize,
    values: Vec<f32>,
    seen: Vec<bool>,
}

/// Labels of single modalities, updated once per epoch from the representations of the heads.
///
/// From *Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for Multimodal Sentiment
/// Analysis* (Yu et al., 2021, <https://arxiv.org/abs/2102.04830>).
pub(in super::super) struct UnimodalLabels {
    /// The labels of the rows (by index in the manifest), positive or negative.
    labels: Vec<Option<f64>>,
    /// What was subtracted from the labels so that both signs occur.
    shift: f64,
    max_abs: f64,
    unimodal: BTreeMap<String, Vec<f64>>,
    /// Mean distance of each modality's labels from those of the rows.
    mean_shift: BTreeMap<String, f64>,
    banks: BTreeMap<String, FeatureBank>,
    num_updates: u64,
}

impl UnimodalLabels {
    /// Starts from the labels of the rows; `None` where the problem has no sign.
    pub(in super::super) fn new(labels: &[Option<Label>], modalities: &[Modality], target: &Target) -> Option<Self> {
        let signed = |label: &Option<Label>| match (target.problem, label) {
            (Problem::Binary, Some(Label::Class(class))) => Some(*class as f64 * 2.0 - 1.0),
            (Problem::Regression, Some(Label::Number(value))) => Some(*value),
            _ => None,
        };
        let mut labels: Vec<Option<f64>> = labels.iter().map(signed).collect();
        let known: Vec<f64> = labels.iter().flatten().copied().collect();
        if known.is_empty() {
            return None;
        }
        let both_signs = known.iter().any(|v| *v > 0.0) && known.iter().any(|v| *v < 0.0);
        let shift = if both_signs { 0.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        labels.iter_mut().flatten().for_each(|v| *v -= shift);
        let max_abs = labels.iter().flatten().fold(0.0, |m: f64, v| m.max(v.abs()));
        let own: Vec<f64> = labels.iter().map(|t| t.unwrap_or(0.0)).collect();
        let unimodal = modalities.iter().map(|m| (m.to_string(), own.clone())).collect();
        let (mean_shift, banks) = Default::default();
        Some(Self { labels, shift, max_abs, unimodal, mean_shift, banks, num_updates: 0 })
    }

    /// Stores the representations `[rows, dim]` of a head for these rows; `present` `[rows]` is 1 where a row has the
    /// modality.
    pub(in super::super) fn record(
        &mut self,
        head: &str,
        rows: &[usize],
        features: &Tensor,
        present: Option<&Tensor>,
    ) -> Result<()> {
        let dim = features.size(1)? as usize;
        let values: Vec<f32> = features.detach()?.to_dtype(DType::F32)?.to_device(Device::Cpu)?.to_vec()?;
        let present: Option<Vec<f32>> = present.map(|p| p.to_device(Device::Cpu)?.to_vec()).transpose()?;
        let count = self.labels.len();
        let empty = || FeatureBank { dim, values: vec![0.0; count * dim], seen: vec![false; count] };
        let bank = self.banks.entry(head.to_owned()).or_insert_with(empty);
        for (n, row) in rows.iter().enumerate() {
            if present.as_ref().is_none_or(|p| p[n] > 0.5) && *row < count && bank.dim == dim {
                bank.values[row * dim..(row + 1) * dim].copy_from_slice(&values[n * dim..(n + 1) * dim]);
                bank.seen[*row] = true;
            }
        }
        Ok(())
    }

    /// Updates the labels of every modality from what was recorded in the last epoch.
    pub(in super::super) fn update(&mut self) -> Result<()> {
        let Some(fused) = self.banks.get(FUSED) else { return Ok(()) };
        self.num_updates += 1;
        let known = |bank: &FeatureBank| -> Vec<usize> {
            (0..self.labels.len()).filter(|r| bank.seen[*r] && self.labels[*r].is_some()).collect()
        };
        let labels = |rows: &[usize]| -> Vec<f64> { rows.iter().filter_map(|r| self.labels[*r]).collect() };
        let rows = known(fused);
        let mut fused_polarity = vec![0.0; self.labels.len()];
        for (row, found) in rows.iter().zip(polarity(&fused.select(&rows)?, &labels(&rows))?) {
            fused_polarity[*row] = found;
        }
        let mut updated = Vec::new();
        for (head, previous) in &self.unimodal {
            let Some(bank) = self.banks.get(head) else { continue };
            let rows: Vec<usize> = known(bank).into_iter().filter(|r| fused.seen[*r]).collect();
            let previous: Vec<f64> = rows.iter().map(|r| previous[*r]).collect();
            // The centroids are those of the modality's own current labels.
            let own = polarity(&bank.select(&rows)?, &previous)?;
            let fused: Vec<f64> = rows.iter().map(|r| fused_polarity[*r]).collect();
            let new = unimodal_labels(&labels(&rows), &fused, &own, &previous, self.max_abs, self.num_updates)?;
            updated.push((head.clone(), rows, new));
        }
        for (head, rows, new) in updated {
            if let Some(labels) = self.unimodal.get_mut(&head) {
                rows.iter().zip(new).for_each(|(r, v)| labels[*r] = v);
            }
        }
        self.update_mean_shift();
        Ok(())
    }

    fn update_mean_shift(&mut self) {
        for (head, labels) in &self.unimodal {
            let distances = labels.iter().zip(&self.labels).filter_map(|(own, label)| Some((own - (*label)?).abs()));
            let distances: Vec<f64> = distances.collect();
            self.mean_shift.insert(head.clone(), distances.iter().sum::<f64>() / distances.len().max(1) as f64);
        }
    }

    /// Mean distance of a modality's labels from those of the rows.
    pub(in super::super) fn mean_shift(&self, head: &str) -> f64 {
        self.mean_shift.get(head).copied().unwrap_or(0.0)
    }

    /// The loss of a unimodal head against its own labels, each row weighted by the distance of its label from that of
    /// the row (equation 16); `None` for an unknown head. `label_stats` are mean and standard deviation of regression
    /// targets.
    pub(in super::super) fn loss(
        &self,
        head: &str,
        outputs: &Tensor,
        present: &Tensor,
        rows: &[usize],
        target: &Target,
        label_stats: (f64, f64),
    ) -> Result<Option<Tensor>> {
        let Some(labels) = self.unimodal.get(head) else { return Ok(None) };
        let own: Vec<f32> = rows.iter().map(|r| labels.get(*r).copied().unwrap_or(0.0) as f32).collect();
        let weight = |row: &usize| match (labels.get(*row), self.labels.get(*row)) {
            (Some(own), Some(Some(label))) => (own - label).abs().tanh() as f32,
            _ => 0.0,
        };
        let weights: Vec<f32> = rows.iter().map(weight).collect();
        let device = outputs.device();
        let weights = Tensor::from_slice(&weights)?.to_device(device)?.mul(present)?;
        let own = Tensor::from_slice(&own)?.to_device(device)?;
        let losses = if target.problem == Problem::Regression {
            let (mean, std) = label_stats;
            let standardized = own.add_scalar(self.shift - mean)?.mul_scalar(1.0 / std)?;
            outputs.squeeze(1)?.sub(&standardized)?.abs()?
        } else {
            // A label of 0 is a probability of one half.
            let positive = own.mul_scalar(0.5 / self.max_abs)?.add_scalar(0.5)?;
            let log_probs = outputs.log_softmax(1)?;
            let negative = positive.neg()?.add_scalar(1.0)?;
            log_probs.select(1, 1)?.mul(&positive)?.add(&log_probs.select(1, 0)?.mul(&negative)?)?.neg()?
        };
        Ok(Some(losses.mul(&weights)?.mean()?))
    }

    /// All state, for a checkpoint.
    pub(super) fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut out = vec![("num_updates".to_owned(), Tensor::from_slice(&[self.num_updates as i64])?)];
        for (head, labels) in &self.unimodal {
            out.push((format!("labels.{head}"), Tensor::from_slice(labels)?));
        }
        for (head, bank) in &self.banks {
            let seen: Vec<i64> = bank.seen.iter().map(|s| i64::from(*s)).collect();
            out.push((format!("seen.{head}"), Tensor::from_slice(&seen)?));
            let shape = [bank.seen.len() as i64, bank.dim as i64];
            out.push((format!("features.{head}"), Tensor::from_vec(&bank.values, &shape)?));
        }
        Ok(out)
    }

    /// Takes back [`UnimodalLabels::state`]; nothing is changed where none was saved.
    pub(super) fn load_state(&mut self, find: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
        let Some(num_updates) = find("num_updates") else { return Ok(()) };
        self.num_updates = num_updates.to_f64()? as u64;
        let count = self.labels.len();
        for (head, labels) in &mut self.unimodal {
            if let Some(found) = find(&format!("labels.{head}")).filter(|t| t.shape() == [count as i64]) {
                *labels = found.to_vec()?;
            }
        }
        for head in self.unimodal.keys().cloned().chain([FUSED.to_owned()]) {
            let (Some(seen), Some(features)) = (find(&format!("seen.{head}")), find(&format!("features.{head}")))
            else {
                continue;
            };
            let seen: Vec<bool> = seen.to_vec::<i64>()?.iter().map(|s| *s != 0).collect();
            if seen.len() == count && features.rank() == 2 {
                let dim = features.size(1)? as usize;
                self.banks.insert(head, FeatureBank { dim, values: features.to_vec()?, seen });
            }
        }
        self.update_mean_shift();
        Ok(())
    }

    /// The label of a row for one modality.
    #[cfg(test)]
    pub(super) fn label(&self, head: &str, row: usize) -> f64 {
        self.unimodal[head][row]
    }
}

impl FeatureBank {
    /// The representations of some rows, `[rows, dim]`.
    fn select(&self, rows: &[usize]) -> Result<Tensor> {
        let values: Vec<f32> =
            rows.iter().flat_map(|r| &self.values[r * self.dim..(r + 1) * self.dim]).copied().collect();
        Tensor::from_vec(&values, &[rows.len() as i64, self.dim as i64])
    }
}
