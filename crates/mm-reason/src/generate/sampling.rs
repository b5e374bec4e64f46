//! Greedy search and sampling: one sequence a row.

use super::{
    config::GenerationConfig,
    logits::LogitsProcessors,
    model::{GeneratedSequence, LanguageModel, OnToken, Prefill, to_rows},
};
use crate::Result;
use mm_core::{DType, Tensor, seed::Rng};

/// Separates this random stream from others of the same seed.
const STREAM: u64 = 0x7061_6c61;

pub(super) fn search<M: LanguageModel>(
    model: &M,
    prefill: Prefill<M::State>,
    config: &GenerationConfig,
    processors: &LogitsProcessors<'_>,
    on_token: OnToken<'_>,
) -> Result<Vec<Vec<GeneratedSequence>>> {
    let Prefill { mut state, mut logits, prompts } = prefill;
    let device = logits.device();
    let vocab_size = logits.size(-1)? as usize;
    let prompt_lengths: Vec<usize> = prompts.iter().map(Vec::len).collect();
    let mut sequences = prompts;
    let mut log_probs = vec![0f64; sequences.len()];
    let mut done = vec![false; sequences.len()];
    let mut rng = Rng::new(&[config.seed, STREAM]);
    // Rows that are not finished. A finished row leaves the batch.
    let mut active: Vec<usize> = (0..sequences.len()).collect();
    for step in 0..config.max_new_tokens {
        let step_log_probs = to_rows(&logits.to_dtype(DType::F32)?.log_softmax(-1)?)?;
        let mut scores = to_rows(&logits)?;
        let (mut next, mut kept) = (Vec::new(), Vec::new());
        for (index, row) in active.iter().enumerate() {
            let scores = &mut scores[index * vocab_size..(index + 1) * vocab_size];
            processors.apply(config, &sequences[*row], prompt_lengths[*row], scores);
            let token = if config.do_sample { sample(config, scores, &mut rng) } else { argmax(scores) };
            log_probs[*row] += f64::from(step_log_probs[index * vocab_size + token]);
            sequences[*row].push(token as i64);
            let eos = config.is_eos(token as i64);
            if !eos {
                on_token(*row, token as i64);
            }
            done[*row] = eos || processors.should_stop(&sequences[*row][prompt_lengths[*row]..]);
            if !done[*row] {
                next.push(token as i64);
                kept.push(index as i64);
            }
        }
        let before = active.len();
        active.retain(|row| !done[*row]);
        if active.is_empty() || step + 1 == config.max_new_tokens || processors.interrupted() {
            break;
        }
        if kept.len() < before {
            model.reorder(&mut state, &Tensor::from_slice(&kept)?.to_device(device)?)?;
        }
        let ids = Tensor::from_vec(&next, &[next.len() as i64, 1])?.to_device(device)?;
        logits = model.step(&ids, &mut state)?;
    }
    let finish = |(row, ids): (usize, Vec<i64>)| {
        let new = &ids[prompt_lengths[row]..];
        let (count, eos) = (new.len(), new.last().is_some_and(|token| config.is_eos(*token)));
        vec![GeneratedSequence {
            token_ids: new[..count - usize::from(eos)].to_vec(),
            log_prob: log_probs[row],
            score: log_probs[row] / (count as f64).powf(config.length_penalty),
            finished: done[row],
        }]
    };
    Ok(sequences.into_iter().enumerate().map(finish).collect())
}

/// Index of the first of the highest scores.
pub(super) fn argmax(scores: &[f32]) -> usize {
    let mut best = 0;
    for (id, score) in scores.iter().enumerate() {
        if *score > scores[best] || scores[best].is_nan() {
            best = id;
        }
    }
    best
}

/// Samples a token among those that temperature, top-k, top-p and min-p leave.
fn sample(config: &GenerationConfig, scores: &[f32], rng: &mut Rng) -> usize {
    let temperature = config.temperature as f32;
    let mut candidates: Vec<(usize, f32)> = scores.iter().map(|s| s / temperature).enumerate().collect();
    candidates.retain(|(_, score)| score.is_finite());
    if candidates.is_empty() {
        return argmax(scores);
    }
    candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if config.top_k > 0 {
        candidates.truncate(config.top_k);
    }
    let highest = candidates[0].1;
    let mut weights: Vec<f64> = candidates.iter().map(|(_, score)| f64::from(score - highest).exp()).collect();
    if config.top_p < 1.0 {
        let total: f64 = weights.iter().sum();
        let mut cumulative = 0.0;
        let kept = weights.iter().take_while(|weight| {
            let before = cumulative;
            cumulative += *weight / total;
            before < config.top_p
        });
        let kept = kept.count().max(1);
        weights.truncate(kept);
    }
    if config.min_p > 0.0 {
        let kept = weights.iter().take_while(|weight| **weight >= config.min_p * weights[0]).count().max(1);
        weights.truncate(kept);
    }
    let mut remaining = rng.uniform_range(0.0, 1.0) * weights.iter().sum::<f64>();
    for (index, weight) in weights.iter().enumerate() {
        remaining -= weight;
        if remaining <= 0.0 {
            return candidates[index].0;
        }
    }
    candidates[weights.len() - 1].0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_the_probabilities_of_the_remaining_tokens() {
        let scores = [0.0f32, 1.0, 2.0, f32::NEG_INFINITY];
        let mut rng = Rng::new(&[3]);
        let mut counts = [0usize; 4];
        let full = GenerationConfig { do_sample: true, top_k: 0, eos_token_id: vec![0], ..GenerationConfig::default() };
        (0..20_000).for_each(|_| counts[sample(&full, &scores, &mut rng)] += 1);
        let total = 1.0 + 1f64.exp() + 2f64.exp();
        for (count, weight) in counts.iter().zip([1.0, 1f64.exp(), 2f64.exp(), 0.0]) {
            assert!((*count as f64 / 20_000.0 - weight / total).abs() < 0.015, "{counts:?}");
        }
        for restricted in [
            GenerationConfig { top_k: 1, ..full.clone() },
            GenerationConfig { top_p: 0.3, ..full.clone() },
            GenerationConfig { min_p: 0.9, ..full.clone() },
            GenerationConfig { temperature: 1e-3, ..full.clone() },
        ] {
            assert!((0..200).all(|_| sample(&restricted, &scores, &mut rng) == 2));
        }
    }
}
