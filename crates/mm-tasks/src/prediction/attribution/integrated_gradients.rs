//! Integrated gradients through the network.

use super::super::network::{ForwardOptions, Network, NetworkInput};
use mm_core::{DType, Device, Input, Modality, Result, Tensor, enable_grad, nn::capture_embeddings};
use std::collections::{BTreeMap, BTreeSet};

/// Minimum and maximum number of points on the path.
const NUM_STEPS: [usize; 2] = [16, 96];
/// Maximum number of points in one batch.
const MAX_BATCH_POINTS: usize = 16;
/// Elements of an image of 224 × 224 pixels; larger inputs get fewer points, for memory and time.
const LARGE_INPUT: usize = 3 * 224 * 224;

/// For each modality the gradients at some points `[points, …]`, and the path from the baseline to the input, both in
/// the shape of a sample (of tokens: of their embeddings).
type PathGradients = BTreeMap<Modality, (Tensor, Tensor)>;

/// The row to explain, with the other rows of its item that its prediction depends on; these stay as they are.
pub(super) struct ExplainedRow<'a> {
    /// The processed values of all rows.
    pub(super) parts: BTreeMap<&'a Modality, (Input, Vec<usize>)>,
    /// Number of rows.
    pub(super) num_rows: usize,
    /// The explained row.
    pub(super) row: usize,
    /// The explained output.
    pub(super) output: i64,
    pub(super) device: Device,
}

/// Attributions of a row.
pub(super) struct PathAttributions {
    /// For each element (of tokens: each token) of each modality.
    pub(super) attributions: BTreeMap<Modality, Tensor>,
    /// The score of the baseline.
    pub(super) baseline_score: f64,
    /// The score of the row.
    pub(super) score: f64,
}

/// The inputs at some points of the path.
struct PathPoints<'a> {
    parts: BTreeMap<&'a Modality, (Input, Vec<usize>)>,
    /// Continuous inputs at the points, which require gradients, and the whole path.
    leaves: BTreeMap<&'a Modality, (Tensor, Tensor)>,
    /// Token ids whose embeddings are scaled, with the scale of each row.
    token_ids: Vec<(Tensor, Tensor)>,
    /// The modality of each of these, the index of the explained row among its rows, and their number.
    token_modalities: Vec<(&'a Modality, i64, i64)>,
}

/// A tensor whose gradient is needed.
struct Leaf<'a> {
    modality: &'a Modality,
    tensor: Tensor,
    path: Tensor,
    /// For embeddings of several rows: the index of the explained one, and their number.
    among: Option<(i64, i64)>,
}

/// The score `[rows]` of one output of `[rows, outputs]`: the logit minus the mean of the others.
fn output_score(outputs: &Tensor, output: i64) -> Result<Tensor> {
    let count = outputs.size(1)?;
    let own = outputs.select(1, output)?;
    if count < 2 {
        return Ok(own);
    }
    let others = outputs.sum_dim(&[1], false)?.sub(&own)?.mul_scalar(1.0 / (count - 1) as f64)?;
    own.sub(&others)
}

/// The baseline of a sample: silence for audio, zeros otherwise (an image of the mean color, mean features).
fn baseline_of(modality: &Modality, sample: &Tensor) -> Result<Tensor> {
    if *modality == Modality::AUDIO {
        sample.zeros_like()?.add_scalar(sample.min()?.to_f64()?)
    } else {
        sample.zeros_like()
    }
}

/// `[…]` → `[count, …]`.
fn per_point(x: &Tensor, count: i64) -> Result<Tensor> {
    let shape: Vec<i64> = std::iter::once(count).chain(x.shape()).collect();
    x.unsqueeze(0)?.expand(&shape)?.contiguous()
}

/// `[count]` → `[count, 1, …]` of this rank.
fn with_rank(x: &Tensor, rank: usize) -> Result<Tensor> {
    let mut shape = vec![1; rank];
    shape[0] = x.size(0)?;
    x.reshape(&shape)
}

/// The shape of `x` with the first size split into `[first, second]`.
fn split_first(x: &Tensor, first: i64, second: i64) -> Result<Tensor> {
    let shape: Vec<i64> = [first, second].into_iter().chain(x.shape().into_iter().skip(1)).collect();
    x.reshape(&shape)
}

impl<'a> ExplainedRow<'a> {
    /// The inputs at some points of the path; `shares` `[points]` are 0 at the baseline and 1 at the row.
    fn at(&self, shares: &Tensor) -> Result<PathPoints<'a>> {
        let (count, device) = (shares.size(0)?, self.device);
        let mut points = PathPoints {
            parts: BTreeMap::new(),
            leaves: BTreeMap::new(),
            token_ids: Vec::new(),
            token_modalities: Vec::new(),
        };
        for (&modality, (input, which)) in &self.parts {
            let input = input.to_device(device)?;
            let num_values = which.len() as i64;
            let index = which.iter().position(|row| *row == self.row).map(|n| n as i64);
            let mut values = per_point(&input.values, count)?.flatten(0, 1)?;
            match index {
                None => {}
                Some(index) if input.values.dtype()? == DType::I64 => {
                    // The embeddings of the explained row are scaled, those of the others are not.
                    let ones = Tensor::ones(&[count, num_values], DType::F32, device)?;
                    let own = shares.add_scalar(-1.0)?.unsqueeze(1)?.pad(&[index, num_values - index - 1], 0.0)?;
                    points.token_ids.push((values.clone(), ones.add(&own)?.reshape(&[-1])?));
                    points.token_modalities.push((modality, index, num_values));
                }
                Some(index) => {
                    let own = input.values.narrow(0, index, 1)?;
                    let baseline = baseline_of(modality, &own)?;
                    let path = own.sub(&baseline)?;
                    let leaf = baseline.add(&path.mul(&with_rank(shares, path.rank())?)?)?;
                    let leaf = leaf.detach()?.set_requires_grad(true)?;
                    let all = split_first(&values, count, num_values)?;
                    let after = num_values - index - 1;
                    let pieces = [all.narrow(1, 0, index)?, leaf.unsqueeze(1)?, all.narrow(1, index + 1, after)?];
                    values = Tensor::cat(&pieces.each_ref(), 1)?.flatten(0, 1)?;
                    points.leaves.insert(modality, (leaf, path));
                }
            }
            let mask = input.mask.as_ref().map(|m| per_point(m, count)?.flatten(0, 1)).transpose()?;
            let rows = (0..count as usize).flat_map(|n| which.iter().map(move |row| n * self.num_rows + row)).collect();
            points.parts.insert(modality, (Input { values, mask }, rows));
        }
        Ok(points)
    }
}

impl Network {
    /// Scores and gradients at some points of the path.
    fn path_gradients(&self, row: &ExplainedRow<'_>, points: &[f32]) -> Result<(Vec<f64>, PathGradients)> {
        let (count, device) = (points.len() as i64, row.device);
        let items: Vec<String> = (0..count).flat_map(|n| std::iter::repeat_n(n.to_string(), row.num_rows)).collect();
        let PathPoints { parts, leaves, token_ids, token_modalities } =
            row.at(&Tensor::from_slice(points)?.to_device(device)?)?;
        let input = NetworkInput { parts, precomputed: &BTreeSet::new(), items: &items };
        enable_grad(|| {
            let (score, embeddings) = capture_embeddings(token_ids, || {
                let batch = self.encode(&input, device, ForwardOptions::default())?;
                let outputs = self.fuse(&batch, false)?.fused; // [points * rows, outputs]
                let own = outputs.reshape(&[count, row.num_rows as i64, -1])?.select(1, row.row as i64)?;
                output_score(&own, row.output)
            })?;
            let mut wanted: Vec<Leaf<'_>> = Vec::new();
            for (modality, (tensor, path)) in leaves {
                wanted.push(Leaf { modality, tensor, path, among: None });
            }
            for ((modality, index, num_values), (full, scaled)) in token_modalities.into_iter().zip(embeddings) {
                let path = full.narrow(0, index, 1)?;
                wanted.push(Leaf { modality, tensor: scaled, path, among: Some((index, num_values)) });
            }
            let tensors: Vec<&Tensor> = wanted.iter().map(|leaf| &leaf.tensor).collect();
            let gradients = score.sum()?.autograd_grad(&tensors)?;
            let mut out = PathGradients::new();
            for (leaf, gradient) in wanted.iter().zip(gradients) {
                let gradient = match leaf.among {
                    Some((index, num_values)) => split_first(&gradient, count, num_values)?.select(1, index)?,
                    None => gradient,
                };
                out.insert(leaf.modality.clone(), (gradient.detach()?, leaf.path.squeeze(0)?));
            }
            Ok((score.detach()?.to_vec()?, out))
        })
    }

    /// The integrated gradients of one output for one row.
    pub(super) fn integrated_gradients(&self, row: &ExplainedRow<'_>) -> Result<PathAttributions> {
        let numel: usize = row.parts.values().map(|(i, _)| i.values.shape().iter().product::<i64>() as usize).sum();
        // Each point costs as much as there are rows, so whole videos get fewer.
        let max_steps = NUM_STEPS[1] / row.num_rows.clamp(1, NUM_STEPS[1] / NUM_STEPS[0]);
        let count = (NUM_STEPS[1] * LARGE_INPUT / numel.max(1)).clamp(NUM_STEPS[0], max_steps);
        let batch = MAX_BATCH_POINTS * LARGE_INPUT / numel.max(1);
        let batch = batch.clamp(1, (MAX_BATCH_POINTS / row.num_rows).max(1));
        // Both ends, for their scores, and the midpoints of the steps with their lengths; the steps near the baseline
        // are short, because scores change most there.
        let edge = |n: usize| (n as f32 / count as f32).powi(2);
        let midpoints = (0..count).map(|n| (f32::midpoint(edge(n), edge(n + 1)), edge(n + 1) - edge(n)));
        let steps: Vec<(f32, f32)> = [(0.0, 0.0), (1.0, 0.0)].into_iter().chain(midpoints).collect();
        let (mut scores, mut sums): (Vec<f64>, PathGradients) = Default::default();
        for steps in steps.chunks(batch) {
            let (points, lengths): (Vec<f32>, Vec<f32>) = steps.iter().copied().unzip();
            let (found, gradients) = self.path_gradients(row, &points)?;
            scores.extend(found);
            let lengths = Tensor::from_slice(&lengths)?.to_device(row.device)?;
            for (modality, (gradient, path)) in gradients {
                let sum = gradient.mul(&with_rank(&lengths, gradient.rank())?)?.sum_dim(&[0], false)?;
                let sum = sums.get(&modality).map_or(Ok(sum.clone()), |(before, _)| before.add(&sum))?;
                sums.insert(modality, (sum, path));
            }
        }
        let mut attributions = BTreeMap::new();
        for (modality, (sum, path)) in sums {
            let elements = sum.mul(&path)?.to_device(Device::Cpu)?;
            let is_tokens = row.parts.get(&modality).is_some_and(|(i, _)| i.values.dtype().ok() == Some(DType::I64));
            attributions.insert(modality, if is_tokens { elements.sum_dim(&[1], false)? } else { elements });
        }
        Ok(PathAttributions { attributions, baseline_score: scores[0], score: scores[1] })
    }
}
