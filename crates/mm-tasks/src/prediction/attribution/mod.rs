//! Which words, pixels and parts of a spectrogram a prediction depends on: integrated gradients.

mod integrated_gradients;

use super::{
    network::{ForwardOptions, NetworkInput},
    predictor::Predictor,
    target::Problem,
};
use crate::{Result, batch::RowBatch};
use integrated_gradients::{ExplainedRow, PathAttributions};
use mm_core::{Input, Modality, Tensor, no_grad};
use mm_data::{Manifest, collate, group_rows_by_item};
use std::collections::{BTreeMap, BTreeSet};

/// The contribution of one modality of a row to its prediction.
#[derive(Debug, Clone)]
pub struct Contribution {
    /// How much each element of the sample adds to the score, in the shape of the sample; of tokens one value each.
    pub attributions: Tensor,
    /// The tokens of a text; empty otherwise.
    pub token_names: Vec<String>,
    /// The processed sample.
    pub sample: Tensor,
}

/// Attribution of a row's prediction to its inputs.
///
/// Integrated gradients from a baseline (embeddings of zero, an image of the mean color, silence, mean features) to the
/// row, from *Axiomatic Attribution for Deep Networks* (Sundararajan et al., 2017, <https://arxiv.org/abs/1703.01365>).
#[derive(Debug, Clone)]
pub struct Attribution {
    /// The prediction of the fused head.
    pub prediction: String,
    /// The score: the logit minus the mean of the others; the standardized value of a regression.
    pub score: f64,
    /// The score of the baseline.
    pub baseline_score: f64,
    /// The contribution of each modality that gradients reach.
    pub contributions: BTreeMap<Modality, Contribution>,
}

/// A processed value, and the names of its tokens.
struct Sample {
    values: Tensor,
    token_names: Vec<String>,
}

/// The inputs of a row and of the rows that its prediction depends on.
struct RowInputs<'a> {
    parts: BTreeMap<&'a Modality, (Input, Vec<usize>)>,
    /// Samples of the row itself.
    samples: BTreeMap<Modality, Sample>,
}

impl Attribution {
    /// Relative error of the completeness axiom: how far the sum of the contributions is from the difference of the two
    /// scores, as a fraction of that difference.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn completeness_error(&self) -> Result<f64> {
        let mut sum = 0.0;
        for contribution in self.contributions.values() {
            sum += contribution.attributions.sum()?.to_f64()?;
        }
        let difference = self.score - self.baseline_score;
        Ok((sum - difference).abs() / difference.abs().max(1e-9))
    }
}

impl Predictor {
    /// Attributes the first member's prediction for a row to its inputs; the other rows of its item stay as they are.
    /// `None` for a row without any input that gradients reach.
    ///
    /// # Errors
    /// When gradients cannot be computed.
    pub fn attribute(&self, manifest: &Manifest, row: usize) -> Result<Option<Attribution>> {
        let model = self.first();
        let device = model.params().device();
        let rows = self.dependent_rows(manifest, row);
        let position = rows.iter().position(|r| *r == row).unwrap_or(0);
        let RowInputs { parts, mut samples } = self.read_inputs(manifest, &rows, position)?;
        if samples.is_empty() {
            return Ok(None);
        }
        let items = vec!["0".to_owned(); rows.len()];
        let precomputed = BTreeSet::new();
        let input = NetworkInput { parts: parts.clone(), precomputed: &precomputed, items: &items };
        let outputs = no_grad(|| model.network.forward(&input, device, ForwardOptions::default()))?.fused;
        let outputs = outputs.narrow(0, position as i64, 1)?;
        let best = outputs.argmax(1)?.to_vec::<i64>()?.first().copied().unwrap_or(0);
        let output = if model.target.problem == Problem::Ordinal { 0 } else { best };
        let explained = ExplainedRow { parts, num_rows: rows.len(), row: position, output, device };
        let PathAttributions { attributions, baseline_score, score } =
            model.network.integrated_gradients(&explained)?;
        let class = |index: usize| model.target.classes.get(index).cloned().unwrap_or_default();
        let prediction = match model.target.problem {
            Problem::Regression => {
                let (mean, std) = model.label_stats()?;
                format!("{:.3}", outputs.to_f64()? * std + mean)
            }
            Problem::Ordinal => format!("above {}", class(0)),
            _ => class(best as usize),
        };
        let mut contributions = BTreeMap::new();
        for (modality, attributions) in attributions {
            let Some(Sample { values: sample, token_names }) = samples.remove(&modality) else { continue };
            // In a batch with longer values it was padded.
            let is_padded = attributions.rank() > 0 && attributions.size(0)? > sample.size(0)?;
            let attributions = if is_padded { attributions.narrow(0, 0, sample.size(0)?)? } else { attributions };
            contributions.insert(modality, Contribution { attributions, token_names, sample });
        }
        let attribution = Attribution { prediction, score, baseline_score, contributions };
        Ok((!attribution.contributions.is_empty()).then_some(attribution))
    }

    /// The rows of a row's item in its split, where its prediction depends on them; else the row alone.
    fn dependent_rows(&self, manifest: &Manifest, row: usize) -> Vec<usize> {
        if !self.first().network.groups_items() {
            return vec![row];
        }
        let split = manifest.rows_in_split(manifest.rows[row].split);
        let mut items = group_rows_by_item(manifest, &split).into_iter();
        items.find(|item| item.contains(&row)).unwrap_or_else(|| vec![row])
    }

    /// Reads the inputs of rows; values that cannot be read are treated as missing.
    fn read_inputs(&self, manifest: &Manifest, rows: &[usize], position: usize) -> Result<RowInputs<'_>> {
        let mut inputs = RowInputs { parts: BTreeMap::new(), samples: BTreeMap::new() };
        for (modality, branch) in &self.first().network.branches {
            let processor = branch.input.processor.as_ref();
            let batch = RowBatch::read(manifest, rows, modality, processor);
            if batch.samples.is_empty() {
                continue;
            }
            let own = batch.positions.iter().position(|p| *p == position);
            let source = manifest.rows[rows[position]].values.get(modality).and_then(|values| values.first());
            if let (Some(index), Some(source)) = (own, source) {
                let token_names = processor.token_names(source).unwrap_or_default();
                inputs.samples.insert(modality.clone(), Sample { values: batch.samples[index].clone(), token_names });
            }
            inputs.parts.insert(modality, (collate(&batch.samples, processor)?, batch.positions));
        }
        Ok(inputs)
    }
}
