//! Whole sounds, window by window.

use super::{Pipeline, Request, Times};
use crate::{
    Error, Result,
    generate::{GenerationConfig, LogitsProcessors},
};
use mm_core::{Modality, ProcessContext, Source};

/// What is said between two times.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Seconds from the sound's beginning.
    pub start: f64,
    /// Seconds from the sound's beginning.
    pub end: f64,
    /// What is said.
    pub text: String,
}

/// What is said in a sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// All of it.
    pub text: String,
    /// By its times, where those were asked for or the sound is longer than a window.
    pub segments: Vec<Segment>,
    /// Whether some window's text was cut off at the limit of tokens.
    pub truncated: bool,
}

/// Seconds a time token.
const STEP: f64 = 0.02;

impl Times {
    /// The rules of times: they come in pairs, never go back, one comes first, and where they are together likelier than any word one of
    /// them comes.
    fn apply(&self, said: &[i64], prompt: usize, scores: &mut [f32]) {
        let (first, never) = (self.first as usize, f32::NEG_INFINITY);
        if first >= scores.len() {
            return;
        }
        scores[first - 1] = never;
        let new = &said[prompt..];
        let is = |id: i64| id >= self.first;
        let last = new.last().is_some_and(|id| is(*id));
        let before = new.len() < 2 || is(new[new.len() - 2]);
        if last && before {
            scores[first..].fill(never);
        } else if last {
            scores[..(self.end as usize).min(first)].fill(never);
        }
        if let Some(latest) = new.iter().rev().find(|id| is(**id)) {
            let from = if last && !before { *latest } else { *latest + 1 };
            let to = (from as usize).clamp(first, scores.len());
            scores[first..to].fill(never);
        }
        if new.is_empty() {
            scores[..first].fill(never);
            if let Some(latest) = self.latest {
                let from = (first + latest as usize + 1).min(scores.len());
                scores[from..].fill(never);
            }
        }
        let highest = scores.iter().copied().fold(never, f32::max);
        if !highest.is_finite() {
            return;
        }
        let sum: f32 = scores[first..].iter().map(|s| (s - highest).exp()).sum();
        let word = scores[..first].iter().copied().fold(never, f32::max) - highest;
        if sum.ln() > word {
            scores[..first].fill(never);
        }
    }
}

impl Pipeline {
    /// Writes down what a sound says.
    pub fn transcribe(
        &self,
        source: &Source,
        language: Option<&str>,
        timestamps: bool,
        config: &GenerationConfig,
    ) -> Result<Transcript> {
        let processor = self.processor(&Modality::AUDIO)?;
        let whole = processor.process(source, &mut ProcessContext::eval())?; // [bands, frames]
        let times = self.voice.times();
        let frames = whole.size(1)?;
        let window = times.map_or(frames, |t| t.frames);
        let long = frames > window;
        if long && times.is_none() {
            let wanted = "at most half a minute: this model has no time tokens to go on by";
            return Err(Error::invalid_argument("sound", format!("{frames} frames"), wanted));
        }
        let by_times = timestamps || long;
        let mut out = Transcript { text: String::new(), segments: Vec::new(), truncated: false };
        let mut at = 0;
        // The language is that of the first window.
        let mut prompt = None;
        while at < frames {
            let here = (frames - at).min(window);
            let seen = self.encode_samples(&Modality::AUDIO, &[whole.narrow(1, at, here)?])?;
            let rule = |said: &[i64], prompt: usize, scores: &mut [f32]| {
                if let Some(times) = times {
                    times.apply(said, prompt, scores);
                }
            };
            let mut rules = LogitsProcessors::default();
            if by_times {
                rules.more = Some(&rule);
            }
            let written = match prompt {
                Some(written) => written,
                None => self.voice.prompt(
                    &self.tokenizer,
                    Some(&seen),
                    Request::Transcribe { language, timestamps: by_times },
                )?,
            };
            let found = self.go_on(&[(Some(&seen), &written)], config, &rules, &mut |_, _| {})?;
            prompt = Some(written);
            let said = &found[0][0];
            out.truncated |= !said.finished;
            let Some(times) = times.filter(|_| by_times) else {
                out.text = self.tokenizer.decode(&said.token_ids)?;
                return Ok(out);
            };
            let (pieces, next) = segments(&said.token_ids, times, here);
            for (start, end, ids) in pieces {
                let text =
                    self.tokenizer.decode(&ids.iter().copied().filter(|id| *id < times.first).collect::<Vec<_>>())?;
                let offset = at as f64 * STEP / 2.0;
                let (start, end) = (offset + start as f64 * STEP, offset + end as f64 * STEP);
                out.text += &text;
                out.segments.push(Segment { start, end, text });
            }
            // A window whose last time is its first second says nothing of where to go on.
            at += if next > 0 { next } else { here };
        }
        Ok(out)
    }
}

/// Cuts a window's tokens where two times stand together: (start, end, tokens) in steps, and how many frames on the next window begins.
fn segments(ids: &[i64], times: Times, frames: i64) -> (Vec<(i64, i64, Vec<i64>)>, i64) {
    let is = |n: usize| ids.get(n).is_some_and(|id| *id >= times.first);
    let step = |n: usize| ids[n] - times.first;
    let single = ids.len() > 1 && !is(ids.len() - 2) && is(ids.len() - 1);
    let mut cuts: Vec<usize> = (1..ids.len()).filter(|n| is(n - 1) && is(*n)).collect();
    if cuts.is_empty() {
        let last = (0..ids.len()).rev().find(|n| is(*n)).map(step).filter(|s| *s > 0);
        // Two frames a step.
        return (vec![(0, last.unwrap_or(frames / 2), ids.to_vec())], frames);
    }
    if single {
        cuts.push(ids.len());
    } else if let Some(last) = cuts.last_mut() {
        *last += 1;
    }
    let mut out = Vec::new();
    let mut from = 0;
    for (number, to) in cuts.iter().enumerate() {
        let inner = number + 1 == cuts.len() && !single;
        let end = if inner { to - 2 } else { to - 1 };
        out.push((step(from).max(0), step(end.max(from)).max(0), ids[from..*to].to_vec()));
        from = *to;
    }
    let next = if single { frames } else { step(from - 2) * 2 };
    (out, next)
}
