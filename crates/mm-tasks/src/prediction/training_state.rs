//! What a prediction finds out while it learns and must find again when the run goes on: how much each head's loss counts (gradient
//! blending), and labels of single modalities that nobody gave (Self-MM).

use super::target::{Label, Problem, Target};
use mm_core::{DType, Device, Modality, Result, Tensor};
use mm_fusion::training::{blending_weights, polarity, unimodal_labels};
use std::collections::BTreeMap;

/// The name of the head on all modalities.
pub(super) const FUSED: &str = "fused";

/// Gradient blending (Wang 2020), estimated anew at each evaluation by what was learned since the first: heads that generalise count more,
/// heads that overfit less.
pub(super) struct GradientBlending {
    heads: Vec<String>,
    weights: Vec<f64>,
    /// Sum and number of the training losses since the last evaluation.
    sums: Vec<[f64; 2]>,
    /// Training and validation loss at the first evaluation; not a number before it.
    before: Vec<[f64; 2]>,
}

impl GradientBlending {
    pub(super) fn new(modalities: &[Modality]) -> Self {
        let heads: Vec<String> =
            std::iter::once(FUSED.to_owned()).chain(modalities.iter().map(ToString::to_string)).collect();
        let count = heads.len();
        Self {
            heads,
            weights: vec![1.0 / count as f64; count],
            sums: vec![[0.0; 2]; count],
            before: vec![[f64::NAN; 2]; count],
        }
    }

    /// How much a head's loss counts; all sum to one.
    pub(super) fn weight(&self, head: &str) -> f64 {
        self.heads.iter().position(|h| h == head).map_or(0.0, |n| self.weights[n])
    }

    pub(super) fn trained(&mut self, head: &str, loss: f64) {
        if let Some(n) = self.heads.iter().position(|h| h == head) {
            self.sums[n] = [self.sums[n][0] + loss, self.sums[n][1] + 1.0];
        }
    }

    /// Takes the heads' losses on held-out rows; the weights that count from now on come back.
    pub(super) fn evaluated(&mut self, valid: &BTreeMap<String, f64>) -> mm_fusion::Result<Vec<(String, f64)>> {
        let now: Vec<[f64; 2]> = self
            .heads
            .iter()
            .zip(&self.sums)
            .map(|(head, [sum, count])| [sum / count, valid.get(head).copied().unwrap_or(f64::NAN)])
            .collect();
        let both: Vec<[f64; 4]> = self.before.iter().zip(&now).map(|(b, n)| [b[0], b[1], n[0], n[1]]).collect();
        // A head without rows to be measured on, or before the first evaluation: what was counts on.
        if both.iter().flatten().all(|v| v.is_finite()) {
            self.weights = blending_weights(&both)?;
        }
        // From the first evaluation on: from one to the next, what has learned all it can would seem to know nothing.
        if self.before.iter().flatten().any(|v| !v.is_finite()) && now.iter().flatten().all(|v| v.is_finite()) {
            self.before = now;
        }
        self.sums.iter_mut().for_each(|s| *s = [0.0; 2]);
        Ok(self.heads.iter().cloned().zip(self.weights.iter().copied()).collect())
    }

    fn numbers(&self) -> Vec<f64> {
        self.weights
            .iter()
            .copied()
            .chain(self.sums.iter().flatten().copied())
            .chain(self.before.iter().flatten().copied())
            .collect()
    }
}

/// Features of all training rows under one head, as they were last seen.
struct Bank {
    width: usize,
    values: Vec<f32>,
    seen: Vec<bool>,
}

/// Labels of single modalities (Self-MM, Yu 2021), moved once an epoch.
pub(super) struct UnimodalLabels {
    /// Of the rows as a whole, positive or negative, by number in the manifest.
    truth: Vec<Option<f64>>,
    /// What was taken off the labels so that their signs mean something.
    shift: f64,
    most: f64,
    labels: BTreeMap<String, Vec<f64>>,
    /// How far each modality's have moved from those of the whole, on average: told with every batch, found at every update.
    moved: BTreeMap<String, f64>,
    banks: BTreeMap<String, Bank>,
    updates: u64,
}

impl UnimodalLabels {
    /// For these rows; none where the problem has no positive and negative side.
    pub(super) fn new(labels: &[Option<Label>], modalities: &[Modality], target: &Target) -> Option<Self> {
        let mut truth: Vec<Option<f64>> = labels
            .iter()
            .map(|l| match (target.problem, l) {
                (Problem::Binary, Some(Label::Class(c))) => Some(*c as f64 * 2.0 - 1.0),
                (Problem::Regression, Some(Label::Number(v))) => Some(*v),
                _ => None,
            })
            .collect();
        let known: Vec<f64> = truth.iter().flatten().copied().collect();
        if known.is_empty() {
            return None;
        }
        let sided = known.iter().any(|v| *v > 0.0) && known.iter().any(|v| *v < 0.0);
        let shift = if sided { 0.0 } else { known.iter().sum::<f64>() / known.len() as f64 };
        truth.iter_mut().flatten().for_each(|v| *v -= shift);
        let most = truth.iter().flatten().fold(0.0, |m: f64, v| m.max(v.abs()));
        let own: Vec<f64> = truth.iter().map(|t| t.unwrap_or(0.0)).collect();
        let labels = modalities.iter().map(|m| (m.to_string(), own.clone())).collect();
        Some(Self { truth, shift, most, labels, moved: BTreeMap::new(), banks: BTreeMap::new(), updates: 0 })
    }

    /// Keeps features `[rows, width]` of the rows that a head saw; `present` says which of them it had.
    pub(super) fn record(
        &mut self,
        head: &str,
        rows: &[usize],
        features: &Tensor,
        present: Option<&Tensor>,
    ) -> Result<()> {
        let width = features.size(1)? as usize;
        let values: Vec<f32> = features.detach()?.to_dtype(DType::F32)?.to_device(Device::Cpu)?.to_vec()?;
        let there: Option<Vec<f32>> = present.map(|p| p.to_device(Device::Cpu)?.to_vec()).transpose()?;
        let count = self.truth.len();
        let bank = self.banks.entry(head.to_owned()).or_insert_with(|| Bank {
            width,
            values: vec![0.0; count * width],
            seen: vec![false; count],
        });
        for (n, row) in rows.iter().enumerate() {
            if there.as_ref().is_none_or(|t| t[n] > 0.5) && *row < count && bank.width == width {
                bank.values[row * width..(row + 1) * width].copy_from_slice(&values[n * width..(n + 1) * width]);
                bank.seen[*row] = true;
            }
        }
        Ok(())
    }

    /// Moves every modality's labels by what was recorded in the epoch that ended.
    pub(super) fn update(&mut self) -> Result<()> {
        let Some(fused) = self.banks.get(FUSED) else { return Ok(()) };
        self.updates += 1;
        let told = |e: mm_fusion::Error| mm_core::Error::Sample(e.to_string());
        let known = |bank: &Bank| -> Vec<usize> {
            (0..self.truth.len()).filter(|r| bank.seen[*r] && self.truth[*r].is_some()).collect()
        };
        let truth = |rows: &[usize]| -> Vec<f64> { rows.iter().filter_map(|r| self.truth[*r]).collect() };
        let features = |bank: &Bank, rows: &[usize]| {
            let values: Vec<f32> =
                rows.iter().flat_map(|r| &bank.values[r * bank.width..(r + 1) * bank.width]).copied().collect();
            Tensor::from_vec(&values, &[rows.len() as i64, bank.width as i64])
        };
        let rows = known(fused);
        let mut whole = vec![0.0; self.truth.len()];
        for (row, found) in rows.iter().zip(polarity(&features(fused, &rows)?, &truth(&rows)).map_err(told)?) {
            whole[*row] = found;
        }
        let mut moved = Vec::new();
        for (head, labels) in &self.labels {
            let Some(bank) = self.banks.get(head) else { continue };
            let rows: Vec<usize> = known(bank).into_iter().filter(|r| fused.seen[*r]).collect();
            let before: Vec<f64> = rows.iter().map(|r| labels[*r]).collect();
            // The middles are of the modality's own labels as they stand.
            let alone = polarity(&features(bank, &rows)?, &before).map_err(told)?;
            let fused: Vec<f64> = rows.iter().map(|r| whole[*r]).collect();
            let new = unimodal_labels(&truth(&rows), &fused, &alone, &before, self.most, self.updates).map_err(told)?;
            moved.push((head.clone(), rows, new));
        }
        for (head, rows, new) in moved {
            if let Some(labels) = self.labels.get_mut(&head) {
                rows.iter().zip(new).for_each(|(r, v)| labels[*r] = v);
            }
        }
        self.measure();
        Ok(())
    }

    fn measure(&mut self) {
        for (head, labels) in &self.labels {
            let off: Vec<f64> = labels.iter().zip(&self.truth).filter_map(|(l, t)| Some((l - (*t)?).abs())).collect();
            self.moved.insert(head.clone(), off.iter().sum::<f64>() / off.len().max(1) as f64);
        }
    }

    /// How far a modality's labels have moved from those of the whole, on average.
    pub(super) fn moved(&self, head: &str) -> f64 {
        self.moved.get(head).copied().unwrap_or(0.0)
    }

    /// The loss of a modality's outputs against its own labels, the more a row counts the further they are from those of the whole (the
    /// paper's equation 16); none where no row has the modality.
    pub(super) fn loss(
        &self,
        head: &str,
        outputs: &Tensor,
        present: &Tensor,
        rows: &[usize],
        target: &Target,
        level: (f64, f64),
    ) -> Result<Option<Tensor>> {
        let Some(labels) = self.labels.get(head) else { return Ok(None) };
        let own: Vec<f32> = rows.iter().map(|r| labels.get(*r).copied().unwrap_or(0.0) as f32).collect();
        let weight: Vec<f32> = rows
            .iter()
            .map(|r| match (labels.get(*r), self.truth.get(*r)) {
                (Some(label), Some(Some(truth))) => (label - truth).abs().tanh() as f32,
                _ => 0.0,
            })
            .collect();
        let device = outputs.device();
        let weight = Tensor::from_slice(&weight)?.to_device(device)?.mul(present)?;
        let own = Tensor::from_slice(&own)?.to_device(device)?;
        let each = if target.problem == Problem::Regression {
            let wanted = own.add_scalar(self.shift - level.0)?.mul_scalar(1.0 / level.1)?;
            outputs.squeeze(1)?.sub(&wanted)?.abs()?
        } else {
            // Half-way between no and yes is a label of zero.
            let yes = own.mul_scalar(0.5 / self.most)?.add_scalar(0.5)?;
            let logs = outputs.log_softmax(1)?;
            let no = yes.neg()?.add_scalar(1.0)?;
            logs.select(1, 1)?.mul(&yes)?.add(&logs.select(1, 0)?.mul(&no)?)?.neg()?
        };
        Ok(Some(each.mul(&weight)?.mean()?))
    }
}

/// Both, where they are asked for.
#[derive(Default)]
pub(super) struct TrainingState {
    pub(super) blending: Option<GradientBlending>,
    pub(super) own: Option<UnimodalLabels>,
}

impl TrainingState {
    pub(super) fn state(&self) -> Result<Vec<(String, Tensor)>> {
        let mut out = Vec::new();
        if let Some(blending) = &self.blending {
            out.push(("blending".to_owned(), Tensor::from_slice(&blending.numbers())?));
        }
        if let Some(own) = &self.own {
            out.push(("own.updates".into(), Tensor::from_slice(&[own.updates as i64])?));
            for (head, labels) in &own.labels {
                out.push((format!("own.labels.{head}"), Tensor::from_slice(labels)?));
            }
            for (head, bank) in &own.banks {
                let seen: Vec<i64> = bank.seen.iter().map(|s| i64::from(*s)).collect();
                out.push((format!("own.seen.{head}"), Tensor::from_slice(&seen)?));
                let shape = [bank.seen.len() as i64, bank.width as i64];
                out.push((format!("own.features.{head}"), Tensor::from_vec(&bank.values, &shape)?));
            }
        }
        Ok(out)
    }

    pub(super) fn restore(&mut self, find: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
        if let (Some(blending), Some(found)) = (&mut self.blending, find("blending")) {
            let numbers: Vec<f64> = found.to_vec()?;
            let count = blending.heads.len();
            if numbers.len() == 5 * count {
                blending.weights = numbers[..count].to_vec();
                let pairs = |from: usize| numbers[from..from + 2 * count].chunks(2).map(|p| [p[0], p[1]]).collect();
                (blending.sums, blending.before) = (pairs(count), pairs(3 * count));
            }
        }
        if let (Some(own), Some(updates)) = (&mut self.own, find("own.updates")) {
            own.updates = updates.to_f64()? as u64;
            let count = own.truth.len();
            for (head, labels) in &mut own.labels {
                if let Some(found) = find(&format!("own.labels.{head}")).filter(|t| t.shape() == [count as i64]) {
                    *labels = found.to_vec()?;
                }
            }
            for head in own.labels.keys().cloned().chain([FUSED.to_owned()]).collect::<Vec<_>>() {
                let (Some(seen), Some(features)) =
                    (find(&format!("own.seen.{head}")), find(&format!("own.features.{head}")))
                else {
                    continue;
                };
                let seen: Vec<bool> = seen.to_vec::<i64>()?.iter().map(|s| *s != 0).collect();
                if seen.len() == count && features.rank() == 2 {
                    let width = features.size(1)? as usize;
                    own.banks.insert(head, Bank { width, values: features.to_vec()?, seen });
                }
            }
            own.measure();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_out_is_there_when_a_run_goes_on() {
        let modalities = [Modality::TEXT, Modality::AUDIO];
        let target = Target { problem: Problem::Binary, classes: vec!["no".into(), "yes".into()] };
        let labels: Vec<Option<Label>> = (0..6).map(|n| Some(Label::Class(n % 2))).chain([None]).collect();
        let fresh = || TrainingState {
            blending: Some(GradientBlending::new(&modalities)),
            own: UnimodalLabels::new(&labels, &modalities, &target),
        };
        let mut first = fresh();
        let blending = first.blending.as_mut().unwrap();
        for (train, valid) in [([1.0, 1.0, 1.0], [1.0, 1.0, 1.0]), ([0.4, 0.2, 0.9], [0.5, 0.95, 0.95])] {
            for (head, loss) in [FUSED, "audio", "text"].iter().zip(train) {
                blending.trained(head, loss);
            }
            let heads = [FUSED, "audio", "text"].map(ToOwned::to_owned).into_iter().zip(valid).collect();
            blending.evaluated(&heads).unwrap();
        }
        // What overfits counts least.
        assert!(
            blending.weight("audio") < blending.weight(FUSED) && blending.weight("audio") < blending.weight("text")
        );
        blending.trained(FUSED, 0.3);
        let own = first.own.as_mut().unwrap();
        let features =
            Tensor::from_vec(&[1f32, 0.0, -1.0, 0.2, 0.9, 0.1, -0.8, 0.0, 0.5, 0.5, 0.7, 0.1], &[6, 2]).unwrap();
        let rows: Vec<usize> = (0..6).collect();
        let there = Tensor::from_slice(&[1f32, 1.0, 1.0, 1.0, 1.0, 0.0]).unwrap();
        own.record(FUSED, &rows, &features, None).unwrap();
        // The first two rows' texts each sound like the other's.
        let swapped = features.index_select(0, &Tensor::from_slice(&[1i64, 0, 2, 3, 4, 5]).unwrap()).unwrap();
        own.record("text", &rows, &swapped, Some(&there)).unwrap();
        own.update().unwrap();
        assert!(own.moved("text") > 0.0 && own.moved("audio") == 0.0);
        // The row without text keeps the label of the whole.
        assert_eq!(own.labels["text"][5], 1.0);
        let kept: BTreeMap<String, Tensor> = first.state().unwrap().into_iter().collect();
        let mut second = fresh();
        second.restore(&|name| kept.get(name).cloned()).unwrap();
        let again = second.state().unwrap();
        assert_eq!(again.len(), kept.len());
        for (name, tensor) in again {
            assert_eq!(tensor.to_bytes().unwrap(), kept[&name].to_bytes().unwrap(), "{name}");
        }
        // Nothing to find is a run that begins.
        fresh().restore(&|_| None).unwrap();
        assert!(UnimodalLabels::new(&[None, None], &modalities, &target).is_none());
    }
}
