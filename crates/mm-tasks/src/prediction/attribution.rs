//! What an answer rests on: integrated gradients (Sundararajan 2017) down to words, pixels and the places of a spectrogram. On the way from
//! an input that says nothing to the row's own, how much the answer's score grew by each number; together exactly as much as it grew.

use super::{
    Predictor,
    network::{Network, Parts},
};
use crate::Result;
use mm_core::{
    DType, Device, Input, Modality, ProcessContext, Source, Tensor, enable_grad, nn::capture_embeddings, no_grad,
};
use mm_data::{Manifest, collate, group_rows_by_item};
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
    let others = outputs.sum_dim(&[1], false)?.sub(&own)?.mul_scalar(1.0 / (width - 1) as f64)?;
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

/// A row, among those of its item that its answer depends on.
struct ClassScores<'a> {
    /// What goes in, of all of them.
    parts: Parts<'a>,
    /// How many there are, and which it is.
    rows: usize,
    own: usize,
    /// Which of its outputs.
    chosen: i64,
    device: Device,
}

impl Network {
    /// The score at some points of the way from nothing to the row, and its gradients there. What cannot grow by degrees and is looked up
    /// in no table stays as it is, and so do the other rows.
    fn slopes(&self, asked: &ClassScores<'_>, points: &[f32]) -> mm_core::Result<(Vec<f64>, Slopes)> {
        let (count, device) = (points.len() as i64, asked.device);
        let names: Vec<String> = (0..count).flat_map(|n| std::iter::repeat_n(n.to_string(), asked.rows)).collect();
        let shares = Tensor::from_slice(points)?.to_device(device)?;
        // [points · rows, …]
        let repeated = |x: &Tensor| {
            let shape: Vec<i64> = std::iter::once(count).chain(x.shape()).collect();
            x.unsqueeze(0)?.expand(&shape)?.contiguous()?.flatten(0, 1)
        };
        let (mut grown, mut leaves): (Parts<'_>, BTreeMap<&Modality, (Tensor, Tensor)>) = Default::default();
        let (mut words, mut numbers) = (Vec::new(), Vec::new());
        for (modality, (input, which)) in &asked.parts {
            let input = input.to_device(device)?;
            let having = which.len() as i64;
            let place = which.iter().position(|row| *row == asked.own).map(|n| n as i64);
            let mut values = repeated(&input.values)?;
            match place {
                None => {}
                Some(place) if input.values.dtype()? == DType::I64 => {
                    // Of its own vectors so much as the point says, of the others' all.
                    let others = Tensor::ones(&[count, having], DType::F32, device)?;
                    let less = shares.add_scalar(-1.0)?.unsqueeze(1)?.pad(&[place, having - place - 1], 0.0)?;
                    numbers.push((values.clone(), others.add(&less)?.reshape(&[-1])?));
                    words.push((modality, place, having));
                }
                Some(place) => {
                    let own = input.values.narrow(0, place, 1)?;
                    let ground = nothing(modality, &own)?;
                    let way = own.sub(&ground)?;
                    let mut ones = vec![1; way.rank()];
                    ones[0] = count;
                    let leaf = ground.add(&way.mul(&shares.reshape(&ones)?)?)?.detach()?.set_requires_grad(true)?;
                    let shape: Vec<i64> = [count, having].into_iter().chain(way.shape().into_iter().skip(1)).collect();
                    let all = values.reshape(&shape)?;
                    let after = having - place - 1;
                    let pieces = [all.narrow(1, 0, place)?, leaf.unsqueeze(1)?, all.narrow(1, place + 1, after)?];
                    values = Tensor::cat(&pieces.each_ref(), 1)?.flatten(0, 1)?;
                    leaves.insert(modality, (leaf, way));
                }
            }
            let mask = input.mask.as_ref().map(repeated).transpose()?;
            let rows = (0..points.len()).flat_map(|n| which.iter().map(move |row| n * asked.rows + row)).collect();
            grown.insert(modality, (Input { values, mask }, rows));
        }
        enable_grad(|| {
            let (score, watched) = capture_embeddings(numbers, || {
                let stage = self.stage(&grown, &|_| false, &names, device, false)?;
                let all = self.fuse(&stage, false)?.fused; // [points · rows, outputs]
                let each = all.reshape(&[count, asked.rows as i64, -1])?.select(1, asked.own as i64)?;
                scores(&each, asked.chosen)
            })?;
            let mut wanted: Vec<(&Modality, Tensor, Tensor, Option<(i64, i64)>)> =
                leaves.into_iter().map(|(modality, (leaf, way))| (modality, leaf, way, None)).collect();
            for ((modality, place, having), (full, used)) in words.into_iter().zip(watched) {
                wanted.push((modality, used, full.narrow(0, place, 1)?, Some((place, having))));
            }
            let asked: Vec<&Tensor> = wanted.iter().map(|(_, leaf, ..)| leaf).collect();
            let gradients = score.sum()?.autograd_grad(&asked)?;
            let mut out = Slopes::new();
            for ((modality, _, way, among), gradient) in wanted.into_iter().zip(gradients) {
                let gradient = match among {
                    Some((place, having)) => {
                        let shape: Vec<i64> =
                            [count, having].into_iter().chain(gradient.shape().into_iter().skip(1)).collect();
                        gradient.reshape(&shape)?.select(1, place)?
                    }
                    None => gradient,
                };
                out.insert(modality.clone(), (gradient.detach()?, way.squeeze(0)?));
            }
            Ok((score.detach()?.to_vec()?, out))
        })
    }

    /// Of one row: how much each number (of words: each word) added to the score, and the score of nothing and of the row.
    fn attribute(&self, asked: &ClassScores<'_>) -> mm_core::Result<(BTreeMap<Modality, Tensor>, [f64; 2])> {
        let parts = &asked.parts;
        let size: usize = parts.values().map(|(i, _)| i.values.shape().iter().product::<i64>() as usize).sum();
        // Each point costs as much as there are rows, so whole videos get fewer.
        let most = STEPS[1] / asked.rows.clamp(1, STEPS[1] / STEPS[0]);
        let count = (STEPS[1] * LARGE / size.max(1)).clamp(STEPS[0], most);
        // All rows of the item come along at each point.
        let together = (TOGETHER * LARGE / size.max(1)).clamp(1, (TOGETHER / asked.rows).max(1));
        // Both ends, for the scores there, and the middles of the steps with their lengths; short steps first, for scores change wildly
        // where an input first says something.
        let edge = |n: usize| (n as f32 / count as f32).powi(2);
        let middles = (0..count).map(|n| (f32::midpoint(edge(n), edge(n + 1)), edge(n + 1) - edge(n)));
        let steps: Vec<(f32, f32)> = [(0.0, 0.0), (1.0, 0.0)].into_iter().chain(middles).collect();
        let (mut scores, mut sums): (Vec<f64>, Slopes) = Default::default();
        for some in steps.chunks(together) {
            let (points, lengths): (Vec<f32>, Vec<f32>) = some.iter().copied().unzip();
            let (found, slopes) = self.slopes(asked, &points)?;
            scores.extend(found);
            for (modality, (gradient, way)) in slopes {
                let mut ones = vec![1; gradient.rank()];
                ones[0] = lengths.len() as i64;
                let lengths = Tensor::from_slice(&lengths)?.to_device(asked.device)?.reshape(&ones)?;
                let sum = gradient.mul(&lengths)?.sum_dim(&[0], false)?;
                let sum = sums.get(&modality).map_or(Ok(sum.clone()), |(before, _)| before.add(&sum))?;
                sums.insert(modality, (sum, way));
            }
        }
        let mut out = BTreeMap::new();
        for (modality, (sum, way)) in sums {
            let each = sum.mul(&way)?.to_device(Device::Cpu)?;
            let is_words = parts.get(&modality).is_some_and(|(i, _)| i.values.dtype().ok() == Some(DType::I64));
            out.insert(modality, if is_words { each.sum_dim(&[1], false)? } else { each });
        }
        Ok((out, [scores[0], scores[1]]))
    }
}

impl Predictor {
    /// What the first network's answer for a row rests on (where rows depend on the others of their item, these stay as they are); none for a
    /// row of which nothing can be followed back.
    pub fn attribute(&self, manifest: &Manifest, row: usize) -> Result<Option<Attribution>> {
        let model = self.first();
        let device = model.params.device();
        let around: Vec<usize> = if model.network.by_items() {
            let beside = manifest.rows_in_split(manifest.rows[row].split);
            let mut all = group_rows_by_item(manifest, &beside).into_iter();
            all.find(|item| item.contains(&row)).unwrap_or_else(|| vec![row])
        } else {
            vec![row]
        };
        let own = around.iter().position(|r| *r == row).unwrap_or(0);
        let (mut parts, mut about): (Parts<'_>, BTreeMap<Modality, (Vec<String>, Tensor)>) = Default::default();
        for (modality, way) in &model.network.ways {
            let processor = way.processor.as_ref();
            let (mut samples, mut which) = (Vec::new(), Vec::new());
            for (place, row) in around.iter().enumerate() {
                let Some(source) = manifest.rows[*row].values.get(modality).and_then(|v: &Vec<Source>| v.first())
                else {
                    continue;
                };
                // A value that cannot be read is one that the row lacks.
                let Ok(sample) = mm_data::process_catching_panics(processor, source, &mut ProcessContext::eval())
                else {
                    continue;
                };
                if place == own {
                    about.insert(modality.clone(), (processor.token_names(source).unwrap_or_default(), sample.clone()));
                }
                samples.push(sample);
                which.push(place);
            }
            if !samples.is_empty() {
                parts.insert(modality, (collate(&samples, processor)?, which));
            }
        }
        if about.is_empty() {
            return Ok(None);
        }
        let names = vec!["0".to_owned(); around.len()];
        let plain = no_grad(|| model.network.forward(&parts, &|_| false, &names, device, false))?.fused;
        let plain = plain.narrow(0, own as i64, 1)?;
        let chosen = plain.argmax(1)?.to_vec::<i64>()?.first().copied().unwrap_or(0);
        let ordered = model.target.problem == super::Problem::Ordinal;
        let chosen_output = if ordered { 0 } else { chosen };
        let asked = ClassScores { parts, rows: around.len(), own, chosen: chosen_output, device };
        let (found, [ground, score]) = model.network.attribute(&asked)?;
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
            // Beside longer ones it was padded.
            let parts = if parts.rank() > 0 && parts.size(0)? > sample.size(0)? {
                parts.narrow(0, 0, sample.size(0)?)?
            } else {
                parts
            };
            contributions.insert(modality, Contribution { parts, names, sample });
        }
        Ok((!contributions.is_empty()).then_some(Attribution { answer, score, ground, contributions }))
    }
}
