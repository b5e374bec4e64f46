//! Changes to the scores of the next token before it is chosen, one row at a time, in transformers' order.

use super::{config::GenerationConfig, constraint::TokenConstraint};
use std::collections::BTreeSet;

/// Changes scores in place, given the row's tokens (prompt included) and the length of the prompt.
pub type ScoreHook<'a> = &'a dyn Fn(&[i64], usize, &mut [f32]);

/// Processors and stopping criteria in addition to those of a [`GenerationConfig`].
#[derive(Default)]
pub struct LogitsProcessors<'a> {
    /// Restricts which tokens may come next.
    pub token_constraint: Option<&'a dyn TokenConstraint>,
    /// Runs after all other processors (Whisper's timestamp rules).
    pub score_hook: Option<ScoreHook<'a>>,
    /// Whether the tokens generated so far complete the sequence (a stop string).
    pub stopping_criterion: Option<&'a dyn Fn(&[i64]) -> bool>,
    /// Asked at every step: all sequences stop after the current one once it is true.
    pub interrupt: Option<&'a dyn Fn() -> bool>,
}

const MASKED: f32 = f32::NEG_INFINITY;

impl LogitsProcessors<'_> {
    /// Changes the scores of the token after `tokens`, the first `prompt_length` of which are the prompt.
    pub(super) fn apply(&self, config: &GenerationConfig, tokens: &[i64], prompt_length: usize, scores: &mut [f32]) {
        let generated = &tokens[prompt_length..];
        penalize_repetition(config.repetition_penalty, tokens, scores);
        mask_repeated_ngrams(config.no_repeat_ngram_size, tokens, scores);
        if generated.len() < config.min_new_tokens {
            config.eos_token_id.iter().for_each(|id| mask(scores, *id));
        }
        if let Some(allowed) = self.token_constraint.and_then(|constraint| constraint.allowed_next(generated)) {
            let kept: Vec<(usize, f32)> =
                allowed.iter().filter_map(|id| Some((*id as usize, *scores.get(*id as usize)?))).collect();
            scores.fill(MASKED);
            kept.into_iter().for_each(|(id, score)| scores[id] = score);
        }
        if generated.is_empty() {
            force(scores, config.forced_bos_token_id);
        }
        if generated.len() + 1 == config.max_new_tokens {
            force(scores, config.forced_eos_token_id);
        }
        config.suppress_tokens.iter().for_each(|id| mask(scores, *id));
        if generated.is_empty() {
            config.begin_suppress_tokens.iter().for_each(|id| mask(scores, *id));
        }
        if let Some(hook) = self.score_hook {
            hook(tokens, prompt_length, scores);
        }
    }

    pub(crate) fn should_stop(&self, generated: &[i64]) -> bool {
        self.stopping_criterion.is_some_and(|stop| stop(generated))
    }

    pub(super) fn interrupted(&self) -> bool {
        self.interrupt.is_some_and(|is_set| is_set())
    }
}

/// Divides positive and multiplies negative scores of tokens that occurred.
fn penalize_repetition(penalty: f64, tokens: &[i64], scores: &mut [f32]) {
    if (penalty - 1.0).abs() <= f64::EPSILON {
        return;
    }
    let penalty = penalty as f32;
    let unique: BTreeSet<i64> = tokens.iter().copied().collect();
    for id in unique {
        if let Some(score) = scores.get_mut(id as usize) {
            *score = if *score < 0.0 { *score * penalty } else { *score / penalty };
        }
    }
}

/// Masks tokens that would repeat an n-gram.
fn mask_repeated_ngrams(size: usize, tokens: &[i64], scores: &mut [f32]) {
    if size == 0 || tokens.len() + 1 < size {
        return;
    }
    let tail = &tokens[tokens.len() + 1 - size..];
    for window in tokens.windows(size).filter(|window| &window[..size - 1] == tail) {
        mask(scores, window[size - 1]);
    }
}

fn mask(scores: &mut [f32], id: i64) {
    if let Some(score) = scores.get_mut(id as usize) {
        *score = MASKED;
    }
}

/// Leaves this token as the only one.
fn force(scores: &mut [f32], id: Option<i64>) {
    if let Some(id) = id.filter(|id| (*id as usize) < scores.len()) {
        scores.fill(MASKED);
        scores[id as usize] = 0.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> GenerationConfig {
        GenerationConfig { eos_token_id: vec![0], ..GenerationConfig::default() }
    }

    #[test]
    fn processors_mask_and_penalize_tokens() {
        let base = [1.0, 2.0, -1.0, 0.5];
        let after = |config: &GenerationConfig, tokens: &[i64], prompt_length: usize| {
            let mut scores = base;
            LogitsProcessors::default().apply(config, tokens, prompt_length, &mut scores);
            scores
        };
        let penalty = GenerationConfig { repetition_penalty: 2.0, ..config() };
        assert_eq!(after(&penalty, &[1, 2, 1], 0), [1.0, 1.0, -2.0, 0.5]);
        let ngram = GenerationConfig { no_repeat_ngram_size: 2, ..config() };
        // After 3, token 1 would repeat the bigram 3 1.
        assert_eq!(after(&ngram, &[3, 1, 2, 3], 0)[1], MASKED);
        assert_eq!(after(&ngram, &[3, 1, 2, 3], 0)[2], -1.0);
        let first = GenerationConfig {
            begin_suppress_tokens: vec![3],
            min_new_tokens: 2,
            suppress_tokens: vec![2],
            ..config()
        };
        assert_eq!(after(&first, &[9], 1), [MASKED, 2.0, MASKED, MASKED]);
        assert_eq!(after(&first, &[9, 1, 1], 1), [1.0, 2.0, MASKED, 0.5]);
        let forced = GenerationConfig { max_new_tokens: 2, forced_eos_token_id: Some(3), ..config() };
        let scores = after(&forced, &[1, 1], 1);
        assert_eq!(super::super::sampling::argmax(&scores), 3);
    }
}
