//! What changes the scores of the next token before it is chosen: in transformers' order, on one row of numbers at a time.

use super::GenerationConfig;
use crate::{Error, Result};
use mm_core::seed::Rng;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
};

/// Which tokens may follow what was said since the prompt; all where it gives none.
pub trait TokenConstraint: Send + Sync {
    /// The tokens that may come next.
    fn next(&self, said: &[i64]) -> Option<Vec<i64>>;
}

/// LogitsProcessors beside those of a [`GenerationConfig`].
#[derive(Default)]
pub struct LogitsProcessors<'a> {
    /// Which tokens may come next.
    pub allowed: Option<&'a dyn TokenConstraint>,
    /// Anything else that changes scores (Whisper's timestamps): all that was read and said, length of the prompt, scores.
    pub more: Option<&'a dyn Fn(&[i64], usize, &mut [f32])>,
    /// Whether what was said since the prompt is enough (a stop string).
    pub stop: Option<&'a dyn Fn(&[i64]) -> bool>,
    /// Ends everything after the step at hand.
    pub interrupt: Option<&'a AtomicBool>,
}

const NEVER: f32 = f32::NEG_INFINITY;

impl LogitsProcessors<'_> {
    /// Changes the scores of what follows `said`, whose first `prompt` tokens are the prompt.
    pub(crate) fn apply(&self, config: &GenerationConfig, said: &[i64], prompt: usize, scores: &mut [f32]) {
        let new = said.len() - prompt;
        if (config.repetition_penalty - 1.0).abs() > f64::EPSILON {
            let penalty = config.repetition_penalty as f32;
            let seen: BTreeSet<i64> = said.iter().copied().collect();
            for id in seen {
                if let Some(score) = scores.get_mut(id as usize) {
                    *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
                }
            }
        }
        let n = config.no_repeat_ngram_size;
        if n > 0 && said.len() + 1 >= n {
            let tail = &said[said.len() + 1 - n..];
            for window in said.windows(n).filter(|w| &w[..n - 1] == tail) {
                forbid(scores, window[n - 1]);
            }
        }
        if new < config.min_new_tokens {
            config.eos_token_id.iter().for_each(|id| forbid(scores, *id));
        }
        if let Some(allowed) = self.allowed.and_then(|a| a.next(&said[prompt..])) {
            let kept: Vec<(usize, f32)> =
                allowed.iter().filter_map(|id| Some((*id as usize, *scores.get(*id as usize)?))).collect();
            scores.fill(NEVER);
            kept.into_iter().for_each(|(id, score)| scores[id] = score);
        }
        if new == 0 {
            only(scores, config.forced_bos_token_id);
        }
        if new + 1 == config.max_new_tokens {
            only(scores, config.forced_eos_token_id);
        }
        config.suppress_tokens.iter().for_each(|id| forbid(scores, *id));
        if new == 0 {
            config.begin_suppress_tokens.iter().for_each(|id| forbid(scores, *id));
        }
        if let Some(more) = self.more {
            more(said, prompt, scores);
        }
    }

    pub(crate) fn stops(&self, said: &[i64]) -> bool {
        self.stop.is_some_and(|stop| stop(said))
    }

    pub(crate) fn interrupted(&self) -> bool {
        self.interrupt.is_some_and(|flag| flag.load(Ordering::Relaxed))
    }
}

fn forbid(scores: &mut [f32], id: i64) {
    if let Some(score) = scores.get_mut(id as usize) {
        *score = NEVER;
    }
}

fn only(scores: &mut [f32], id: Option<i64>) {
    if let Some(id) = id.filter(|id| (*id as usize) < scores.len()) {
        scores.fill(NEVER);
        scores[id as usize] = 0.0;
    }
}

/// The first of the highest.
pub(crate) fn best(scores: &[f32]) -> usize {
    let mut best = 0;
    for (id, score) in scores.iter().enumerate() {
        if *score > scores[best] || scores[best].is_nan() {
            best = id;
        }
    }
    best
}

/// Draws one, by what temperature, top-k, top-p and min-p leave.
pub(crate) fn draw(config: &GenerationConfig, scores: &[f32], random: &mut Rng) -> usize {
    let temperature = config.temperature as f32;
    let mut order: Vec<(usize, f32)> = scores.iter().map(|s| s / temperature).enumerate().collect();
    order.retain(|(_, s)| s.is_finite());
    if order.is_empty() {
        return best(scores);
    }
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if config.top_k > 0 {
        order.truncate(config.top_k);
    }
    let highest = order[0].1;
    let mut weights: Vec<f64> = order.iter().map(|(_, s)| f64::from(s - highest).exp()).collect();
    if config.top_p < 1.0 {
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let kept = weights.iter().take_while(|w| {
            let before = sum;
            sum += *w / total;
            before < config.top_p
        });
        let kept = kept.count().max(1);
        weights.truncate(kept);
    }
    if config.min_p > 0.0 {
        let kept = weights.iter().take_while(|w| **w >= config.min_p * weights[0]).count().max(1);
        weights.truncate(kept);
    }
    let mut left = random.range(0.0, 1.0) * weights.iter().sum::<f64>();
    for (place, weight) in weights.iter().enumerate() {
        left -= weight;
        if left <= 0.0 {
            return order[place].0;
        }
    }
    order[weights.len() - 1].0
}

/// Only these texts, each then ended.
#[derive(Debug, Default)]
pub struct Choices {
    next: BTreeMap<Vec<i64>, BTreeSet<i64>>,
}

impl Choices {
    /// Of the tokens of each choice; `end` follows each.
    pub fn new(choices: &[Vec<i64>], end: i64) -> Result<Self> {
        if choices.is_empty() || choices.iter().any(Vec::is_empty) {
            return Err(Error::invalid_argument("choices", "none, or one without letters", "at least one text"));
        }
        let mut next: BTreeMap<Vec<i64>, BTreeSet<i64>> = BTreeMap::new();
        for choice in choices {
            for (place, token) in choice.iter().chain(std::iter::once(&end)).enumerate() {
                next.entry(choice[..place].to_vec()).or_default().insert(*token);
            }
        }
        Ok(Self { next })
    }
}

impl TokenConstraint for Choices {
    fn next(&self, said: &[i64]) -> Option<Vec<i64>> {
        Some(self.next.get(said).map(|n| n.iter().copied().collect()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GenerationConfig {
        GenerationConfig { eos_token_id: vec![0], ..GenerationConfig::default() }
    }

    #[test]
    fn rules_forbid_what_they_say() {
        let base = [1.0, 2.0, -1.0, 0.5];
        let after = |config: &GenerationConfig, said: &[i64], prompt: usize| {
            let mut scores = base;
            LogitsProcessors::default().apply(config, said, prompt, &mut scores);
            scores
        };
        let penalty = GenerationConfig { repetition_penalty: 2.0, ..config() };
        assert_eq!(after(&penalty, &[1, 2, 1], 0), [1.0, 1.0, -2.0, 0.5]);
        let ngram = GenerationConfig { no_repeat_ngram_size: 2, ..config() };
        // 3 1 was there; 3 is last, so 1 may not come.
        assert_eq!(after(&ngram, &[3, 1, 2, 3], 0)[1], NEVER);
        assert_eq!(after(&ngram, &[3, 1, 2, 3], 0)[2], -1.0);
        let first = GenerationConfig {
            begin_suppress_tokens: vec![3],
            min_new_tokens: 2,
            suppress_tokens: vec![2],
            ..config()
        };
        assert_eq!(after(&first, &[9], 1), [NEVER, 2.0, NEVER, NEVER]);
        assert_eq!(after(&first, &[9, 1, 1], 1), [1.0, 2.0, NEVER, 0.5]);
        let forced = GenerationConfig { max_new_tokens: 2, forced_eos_token_id: Some(3), ..config() };
        assert_eq!(best(&after(&forced, &[1, 1], 1)), 3);
    }

    #[test]
    fn choices_allow_their_texts_alone() {
        let choices = Choices::new(&[vec![5, 6], vec![5, 7], vec![8]], 0).unwrap();
        assert_eq!(choices.next(&[]), Some(vec![5, 8]));
        assert_eq!(choices.next(&[5]), Some(vec![6, 7]));
        assert_eq!(choices.next(&[8]), Some(vec![0]));
        assert!(Choices::new(&[], 0).is_err() && Choices::new(&[vec![]], 0).is_err());
    }

    #[test]
    fn drawing_keeps_to_what_is_left_and_to_its_shares() {
        let scores = [0.0f32, 1.0, 2.0, f32::NEG_INFINITY];
        let mut random = Rng::at(&[3]);
        let mut count = [0usize; 4];
        let warm = GenerationConfig { do_sample: true, top_k: 0, ..config() };
        (0..20_000).for_each(|_| count[draw(&warm, &scores, &mut random)] += 1);
        let total = 1.0 + 1f64.exp() + 2f64.exp();
        for (n, s) in count.iter().zip([1.0, 1f64.exp(), 2f64.exp(), 0.0]) {
            assert!((*n as f64 / 20_000.0 - s / total).abs() < 0.015, "{count:?}");
        }
        for narrow in [
            GenerationConfig { top_k: 1, ..warm.clone() },
            GenerationConfig { top_p: 0.3, ..warm.clone() },
            GenerationConfig { min_p: 0.9, ..warm.clone() },
            GenerationConfig { temperature: 1e-3, ..warm.clone() },
        ] {
            assert!((0..200).all(|_| draw(&narrow, &scores, &mut random) == 2));
        }
    }
}
