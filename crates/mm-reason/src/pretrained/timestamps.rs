//! Whisper's rules for timestamp tokens, and segments from them.

use super::types::TimestampTokens;

/// Duration of one step of the timestamp tokens, in seconds.
pub(super) const TIME_STEP: f64 = 0.02;
/// Spectrogram frames in one step.
const FRAMES_PER_STEP: i64 = 2;

const MASKED: f32 = f32::NEG_INFINITY;

impl TimestampTokens {
    /// Masks the scores of tokens that would break the rules: timestamps come in pairs and never decrease, the first
    /// token is one, and where timestamps together are more probable than any text token, one of them comes next.
    pub(super) fn apply(&self, tokens: &[i64], prompt_length: usize, scores: &mut [f32]) {
        let Some(first) = usize::try_from(self.first).ok().filter(|first| (1..scores.len()).contains(first)) else {
            return;
        };
        scores[first - 1] = MASKED; // <|notimestamps|>
        let generated = &tokens[prompt_length..];
        let is_timestamp = |id: i64| id >= self.first;
        let last = generated.last().is_some_and(|id| is_timestamp(*id));
        let second_last = generated.len() < 2 || is_timestamp(generated[generated.len() - 2]);
        if last && second_last {
            scores[first..].fill(MASKED);
        } else if last {
            scores[..usize::try_from(self.eos).unwrap_or(0).min(first)].fill(MASKED);
        }
        if let Some(latest) = generated.iter().rev().find(|id| is_timestamp(**id)) {
            let lowest = if last && !second_last { *latest } else { *latest + 1 };
            let end = (lowest as usize).clamp(first, scores.len());
            scores[first..end].fill(MASKED);
        }
        if generated.is_empty() {
            scores[..first].fill(MASKED);
            if let Some(latest) = self.max_initial {
                let latest = usize::try_from(latest).unwrap_or(0);
                let end = first.saturating_add(latest).saturating_add(1).min(scores.len());
                scores[end..].fill(MASKED);
            }
        }
        prefer_timestamps(first, scores);
    }
}

/// Masks text tokens where the timestamps' total probability exceeds that of each of them.
fn prefer_timestamps(first: usize, scores: &mut [f32]) {
    let highest = scores.iter().copied().fold(MASKED, f32::max);
    if !highest.is_finite() {
        return;
    }
    let timestamps: f32 = scores[first..].iter().map(|score| (score - highest).exp()).sum();
    let text = scores[..first].iter().copied().fold(MASKED, f32::max) - highest;
    if timestamps.ln() > text {
        scores[..first].fill(MASKED);
    }
}

/// Tokens between two timestamps, in steps from the start of the window.
pub(super) struct TokenSegment {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) token_ids: Vec<i64>,
}

/// Splits a window's tokens between adjacent timestamps. Also returns after how many frames the next window starts.
pub(super) fn split_segments(ids: &[i64], timestamps: TimestampTokens, frames: i64) -> (Vec<TokenSegment>, i64) {
    let is_timestamp = |n: usize| ids.get(n).is_some_and(|id| *id >= timestamps.first);
    let step = |n: usize| ids[n] - timestamps.first;
    let single_ending = ids.len() > 1 && !is_timestamp(ids.len() - 2) && is_timestamp(ids.len() - 1);
    let mut cuts: Vec<usize> = (1..ids.len()).filter(|n| is_timestamp(n - 1) && is_timestamp(*n)).collect();
    if cuts.is_empty() {
        let last = (0..ids.len()).rev().find(|n| is_timestamp(*n)).map(step).filter(|step| *step > 0);
        let end = last.unwrap_or(frames / FRAMES_PER_STEP);
        return (vec![TokenSegment { start: 0, end, token_ids: ids.to_vec() }], frames);
    }
    if single_ending {
        cuts.push(ids.len());
    } else if let Some(last) = cuts.last_mut() {
        *last += 1;
    }
    let mut segments = Vec::new();
    let mut start = 0;
    for (index, cut) in cuts.iter().enumerate() {
        let pair_ends = index + 1 == cuts.len() && !single_ending;
        let end = if pair_ends { cut - 2 } else { cut - 1 };
        segments.push(TokenSegment {
            start: step(start).max(0),
            end: step(end.max(start)).max(0),
            token_ids: ids[start..*cut].to_vec(),
        });
        start = *cut;
    }
    let next = if single_ending { frames } else { step(start - 2) * FRAMES_PER_STEP };
    (segments, next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_ids_outside_the_vocabulary_mask_nothing_instead_of_ending_the_program() {
        for first in [-1, 0, 4, 99, i64::MAX] {
            let tokens = TimestampTokens { first, eos: -1, max_initial: Some(-1), window_frames: 3000 };
            let mut scores = [1.0f32; 4];
            tokens.apply(&[0, 2], 1, &mut scores);
            assert_eq!(scores, [1.0; 4], "{first}");
        }
        let tokens = TimestampTokens { first: 2, eos: -1, max_initial: Some(i64::MAX), window_frames: 3000 };
        let mut scores = [1.0f32; 4];
        tokens.apply(&[0], 1, &mut scores);
        assert_eq!(scores, [MASKED, MASKED, 1.0, 1.0]);
    }
}
