//! What an answer rests on: integrated gradients (Sundararajan 2017) down to words, pixels and the places of a spectrogram. On the way from
//! an input that says nothing to the row's own, how much the answer's score grew by each number; together exactly as much as it grew.

use super::{
    Predictor,
    network::{Network, Parts},
};
use crate::Result;
use mm_core::{
    DType, Device, Input, Modality, SampleContext, Source, Tensor, nn::watch_embeddings, with_grad, without_grad,
};
use mm_data::{Manifest, collate};
use std::collections::BTreeMap;

/// Most and least points on the way from nothing to the row.
const STEPS: [usize; 2] = [16, 96];
/// Most points at once.
const TOGETHER: usize = 16;
/// Numbers of a picture of 224 pixels: what an encoder remembers of larger samples is much and takes long, and they get fewer points.
const LARGE: usize = 3 * 224 * 224;

/// What one modality of a row contributed.
#[derive(Debug, Clone)]
pub struct Contribution {
    /// How much each number of the sample added to the score, in the sample's own shape; of words one number each.
    pub parts: Tensor,
    /// What the positions are called, where they are words.
    pub names: Vec<String>,
    /// The sample itself.
    pub sample: Tensor,
}

/// What a row's answer rests on.
#[derive(Debug, Clone)]
pub struct Attribution {
    /// The answer.
    pub answer: String,
    /// Its score, of the fused head: its logit less the mean of the others', or the number in deviations.
    pub score: f64,
    /// The score of an input that says nothing.
    pub ground: f64,
    /// Of each modality that could be followed back.
    pub contributions: BTreeMap<Modality, Contribution>,
}

impl Attribution {
    /// How far the contributions are from summing to what the score grew by, as a share of that: what the steps leave out.
    pub fn gap(&self) -> Result<f64> {
        let mut sum = 0.0;
        for contribution in self.contributions.values() {
            sum += contribution.parts.sum()?.to_f64()?;
        }
        let grown = self.score - self.ground;
        Ok((sum - grown).abs() / grown.abs().max(1e-9))
    }
}

/// `[rows, outputs]` → the score of one output, `[rows]`.
fn scores(outputs: &Tensor, chosen: i64) -> mm_core::Result<Tensor> {
    let width = outputs.size(1)?;
    let own = outputs.select(1, chosen)?;
    if width < 2 {
        return Ok(own);
    }
    let others = outputs.sum_dims(&[1], false)?.sub(&own)?.mul_scalar(1.0 / (width - 1) as f64)?;
    own.sub(&others)
}

/// A sample that says nothing: words without vectors, a picture of the mean colour, silence, numbers as they are on average.
fn nothing(modality: &Modality, sample: &Tensor) -> mm_core::Result<Tensor> {
    if *modality == Modality::AUDIO {
        sample.zeros_like()?.add_scalar(sample.min()?.to_f64()?)
    } else {
        sample.zeros_like()
    }
}

/// Of each modality its gradients `[points, …]`, and the whole way from nothing to the row, both in the shape of a sample (words: of their
/// vectors).
type Slopes = BTreeMap<Modality, (Tensor, Tensor)>;

impl Network {
    /// The score at some points of the way from nothing to the row, and its gradients there. What cannot grow by degrees and is looked up
    /// in no table stays as it is.
    fn slopes(
        &self,
        parts: &Parts<'_>,
        chosen: i64,
        device: Device,
        points: &[f32],
    ) -> mm_core::Result<(Vec<f64>, Slopes)> {
        let rows = points.len() as i64;
        let names: Vec<String> = (0..rows).map(|n| n.to_string()).collect();
        let shares = Tensor::from_slice(points)?.to_device(device)?;
        let repeated = |x: &Tensor| {
            let shape: Vec<i64> = std::iter::once(rows).chain(x.shape().into_iter().skip(1)).collect();
            x.expand(&shape)?.contiguous()
        };
        let (mut grown, mut leaves): (Parts<'_>, BTreeMap<&Modality, (Tensor, Tensor)>) = Default::default();
        let (mut words, mut numbers) = (Vec::new(), Vec::new());
        for (modality, (input, _)) in parts {
            let input = input.to_device(device)?;
            let values = if input.values.dtype()? == DType::I64 {
                words.push(modality);
                numbers.push(repeated(&input.values)?);
                repeated(&input.values)?
            } else {
                let ground = nothing(modality, &input.values)?;
                let way = input.values.sub(&ground)?;
                let mut ones = vec![1; way.rank()];
                ones[0] = rows;
                let values = ground.add(&way.mul(&shares.reshape(&ones)?)?)?.detach()?.requires_grad()?;
                leaves.insert(modality, (values.clone(), way));
                values
            };
            let mask = input.mask.as_ref().map(repeated).transpose()?;
            grown.insert(modality, (Input { values, mask }, (0..points.len()).collect()));
        }
        with_grad(|| {
            let (score, watched) = watch_embeddings(numbers, &shares, || {
                let stage = self.stage(&grown, &|_| false, &names, device, false)?;
                scores(&self.fuse(&stage, false)?.fused, chosen)
            })?;
            for (modality, (full, used)) in words.into_iter().zip(watched) {
                leaves.insert(modality, (used, full.narrow(0, 0, 1)?));
            }
            let asked: Vec<&Tensor> = leaves.values().map(|(leaf, _)| leaf).collect();
            let gradients = score.sum()?.gradients(&asked)?;
            let mut out = Slopes::new();
            for ((modality, (_, way)), gradient) in leaves.into_iter().zip(gradients) {
                out.insert(modality.clone(), (gradient.detach()?, way.squeeze(0)?));
            }
            Ok((score.detach()?.to_vec()?, out))
        })
    }

    /// Of one row: how much each number (of words: each word) added to the score, and the score of nothing and of the row.
    fn attribute(
        &self,
        parts: &Parts<'_>,
        chosen: i64,
        device: Device,
    ) -> mm_core::Result<(BTreeMap<Modality, Tensor>, [f64; 2])> {
        let size: usize = parts.values().map(|(i, _)| i.values.shape().iter().product::<i64>() as usize).sum();
        let count = (STEPS[1] * LARGE / size.max(1)).clamp(STEPS[0], STEPS[1]);
        let together = (TOGETHER * LARGE / size.max(1)).clamp(1, TOGETHER);
        // Both ends, for the scores there, and the middles of the steps with their lengths; short steps first, for scores change wildly
        // where an input first says something.
        let edge = |n: usize| (n as f32 / count as f32).powi(2);
        let middles = (0..count).map(|n| (f32::midpoint(edge(n), edge(n + 1)), edge(n + 1) - edge(n)));
        let steps: Vec<(f32, f32)> = [(0.0, 0.0), (1.0, 0.0)].into_iter().chain(middles).collect();
        let (mut scores, mut sums): (Vec<f64>, Slopes) = Default::default();
        for some in steps.chunks(together) {
            let (points, lengths): (Vec<f32>, Vec<f32>) = some.iter().copied().unzip();
            let (found, slopes) = self.slopes(parts, chosen, device, &points)?;
            scores.extend(found);
            for (modality, (gradient, way)) in slopes {
                let mut ones = vec![1; gradient.rank()];
                ones[0] = lengths.len() as i64;
                let lengths = Tensor::from_slice(&lengths)?.to_device(device)?.reshape(&ones)?;
                let sum = gradient.mul(&lengths)?.sum_dims(&[0], false)?;
                let sum = sums.get(&modality).map_or(Ok(sum.clone()), |(before, _)| before.add(&sum))?;
                sums.insert(modality, (sum, way));
            }
        }
        let mut out = BTreeMap::new();
        for (modality, (sum, way)) in sums {
            let each = sum.mul(&way)?.to_device(Device::Cpu)?;
            let is_words = parts.get(&modality).is_some_and(|(i, _)| i.values.dtype().ok() == Some(DType::I64));
            out.insert(modality, if is_words { each.sum_dims(&[1], false)? } else { each });
        }
        Ok((out, [scores[0], scores[1]]))
    }
}

impl Predictor {
    /// What the first network's answer for a row rests on; none for networks whose rows depend on the others of their item, and for a row
    /// of which nothing can be followed back.
    pub fn attribute(&self, manifest: &Manifest, row: usize) -> Result<Option<Attribution>> {
        let model = self.first();
        if model.network.by_items() {
            return Ok(None);
        }
        let device = model.params.device();
        let (mut parts, mut about): (Parts<'_>, BTreeMap<Modality, (Vec<String>, Tensor)>) = Default::default();
        for (modality, way) in &model.network.ways {
            let Some(source) = manifest.rows[row].values.get(modality).and_then(|v: &Vec<Source>| v.first()) else {
                continue;
            };
            let processor = way.processor.as_ref();
            // A value that cannot be read is one that the row lacks.
            let Ok(sample) = mm_data::guarded(processor, source, &mut SampleContext::plain()) else { continue };
            parts.insert(modality, (collate(std::slice::from_ref(&sample), processor)?, vec![0]));
            about.insert(modality.clone(), (processor.names(source).unwrap_or_default(), sample));
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let names = ["0".to_owned()];
        let plain = without_grad(|| model.network.forward(&parts, &|_| false, &names, device, false))?.fused;
        let chosen = plain.argmax(1)?.to_vec::<i64>()?.first().copied().unwrap_or(0);
        let ordered = model.target.problem == super::Problem::Ordinal;
        let (found, [ground, score]) = model.network.attribute(&parts, if ordered { 0 } else { chosen }, device)?;
        let answer = match model.target.problem {
            super::Problem::Regression => {
                let (mean, deviation) = model.level()?;
                format!("{:.3}", plain.to_f64()? * deviation + mean)
            }
            super::Problem::Ordinal => format!("above {}", model.target.classes.first().map_or("", String::as_str)),
            _ => model.target.classes.get(chosen as usize).cloned().unwrap_or_default(),
        };
        let mut contributions = BTreeMap::new();
        for (modality, parts) in found {
            let Some((names, sample)) = about.remove(&modality) else { continue };
            contributions.insert(modality, Contribution { parts, names, sample });
        }
        Ok((!contributions.is_empty()).then_some(Attribution { answer, score, ground, contributions }))
    }
}
