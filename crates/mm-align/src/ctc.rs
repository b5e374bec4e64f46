//! CTC forced alignment: which audio frames belong to which token of a transcript.

use crate::{Result, checks::invalid};
use mm_core::{DType, Tensor};

/// Frames of one token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenSpan {
    /// Token id.
    pub token: i64,
    /// First frame.
    pub start: usize,
    /// One past the last frame.
    pub end: usize,
    /// Mean log-probability of the token over its frames.
    pub score: f64,
}

/// The most probable alignment (Viterbi) of `tokens` with a model's log-probabilities `[frames, classes]`; `blank` is
/// the id of the CTC blank.
///
/// After *CTC-Segmentation of Large Corpora for German End-to-End Speech Recognition* (Kürzinger et al., 2020,
/// <https://arxiv.org/abs/2007.09127>).
///
/// # Errors
/// When a token is out of range or blank, there are too few frames, or no path has a finite probability.
pub fn forced_alignment(log_probabilities: &Tensor, tokens: &[i64], blank: i64) -> Result<Vec<TokenSpan>> {
    let shape = log_probabilities.shape();
    let [frames, classes] = shape.as_slice() else {
        return Err(invalid("forced_alignment", format!("{shape:?}"), "[frames, classes]"));
    };
    let (frames, classes) = (*frames as usize, *classes as usize);
    if let Some(token) = tokens.iter().chain([&blank]).find(|t| !(0..classes as i64).contains(t)) {
        return Err(invalid("forced_alignment", format!("token {token}"), format!("0 to {}", classes as i64 - 1)));
    }
    // A repeated token needs a blank in between.
    let repeats = tokens.windows(2).filter(|p| p[0] == p[1]).count();
    if tokens.is_empty() || tokens.contains(&blank) || frames < tokens.len() + repeats {
        let found = format!("{} tokens in {frames} frames", tokens.len());
        let expected = "at least one token, none of them blank, and a frame for each (two where a token repeats)";
        return Err(invalid("forced_alignment", found, expected));
    }
    let logs = log_probabilities.to_dtype(DType::F64)?.to_vec::<f64>()?;
    let path = viterbi(&logs, frames, classes, tokens, blank)?;
    let mut spans = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let own: Vec<usize> = (0..frames).filter(|t| path[*t] == 2 * index + 1).collect();
        let (Some(start), Some(last)) = (own.first(), own.last()) else { continue };
        let score = own.iter().map(|t| logs[t * classes + *token as usize]).sum::<f64>() / own.len() as f64;
        spans.push(TokenSpan { token: *token, start: *start, end: last + 1, score });
    }
    Ok(spans)
}

/// The state of each frame: `2 i + 1` for token i, even numbers for the blanks between.
fn viterbi(logs: &[f64], frames: usize, classes: usize, tokens: &[i64], blank: i64) -> Result<Vec<usize>> {
    let states = 2 * tokens.len() + 1;
    let class = |s: usize| if s.is_multiple_of(2) { blank } else { tokens[s / 2] } as usize;
    let mut best = vec![f64::NEG_INFINITY; states];
    (best[0], best[1]) = (logs[blank as usize], logs[class(1)]);
    let mut steps = vec![0u8; frames * states];
    for t in 1..frames {
        let mut next = vec![f64::NEG_INFINITY; states];
        for s in 0..states {
            let may_skip_blank = s >= 3 && s % 2 == 1 && class(s) != class(s - 2);
            let candidates = [
                best[s],
                if s >= 1 { best[s - 1] } else { f64::NEG_INFINITY },
                if may_skip_blank { best[s - 2] } else { f64::NEG_INFINITY },
            ];
            let step = (0..3).max_by(|x, y| candidates[*x].total_cmp(&candidates[*y])).unwrap_or(0);
            next[s] = candidates[step] + logs[t * classes + class(s)];
            steps[t * states + s] = step as u8;
        }
        best = next;
    }
    let mut state = if best[states - 1] >= best[states - 2] { states - 1 } else { states - 2 };
    if best[state] == f64::NEG_INFINITY {
        return Err(invalid("forced_alignment", "no path of finite probability", "finite log-probabilities"));
    }
    let mut path = vec![0usize; frames];
    for t in (0..frames).rev() {
        path[t] = state;
        state -= usize::from(steps[t * states + state]);
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_their_frames() {
        // Frames emit: blank, 1, 1, blank, 1, 2, 2.
        let emitted = [0usize, 1, 1, 0, 1, 2, 2];
        let mut logs = vec![(0.05f64).ln(); 7 * 3];
        emitted.iter().enumerate().for_each(|(t, c)| logs[t * 3 + c] = (0.9f64).ln());
        let logs = Tensor::from_vec(&logs, &[7, 3]).unwrap();
        let spans = forced_alignment(&logs, &[1, 1, 2], 0).unwrap();
        let frames: Vec<(usize, usize)> = spans.iter().map(|s| (s.start, s.end)).collect();
        assert_eq!(frames, [(1, 3), (4, 5), (5, 7)]);
        assert!((spans[0].score - 0.9f64.ln()).abs() < 1e-12);
        assert!(forced_alignment(&logs, &[1, 1, 1, 1, 2], 0).is_err() && forced_alignment(&logs, &[7], 0).is_err());
    }
}
