//! Transcribing recordings of any length, window by window.

use super::{
    pipeline::Pipeline,
    timestamps::{TIME_STEP, split_segments},
    transcript_warnings::{TranscriptWarning, TranscriptWarningKind, find_silence, repeats_itself},
    types::Request,
};
use crate::{
    Error, Result,
    generate::{GenerationConfig, LogitsProcessors},
};
use mm_core::{Modality, ProcessContext, Source};

/// A part of a transcript.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Start, in seconds from the beginning of the recording.
    pub start: f64,
    /// End, in seconds from the beginning of the recording.
    pub end: f64,
    /// The transcribed text.
    pub text: String,
}

/// The transcript of a recording.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// The whole text.
    pub text: String,
    /// Segments, where timestamps were requested or the recording is longer than a window.
    pub segments: Vec<Segment>,
    /// Whether the text of a window was cut off at the maximum number of tokens.
    pub truncated: bool,
    /// Intervals whose text should not be trusted: silence, and windows whose text repeats itself.
    pub warnings: Vec<TranscriptWarning>,
}

impl Transcript {
    /// Adds a warning where the text of a window between two frames repeats itself.
    fn warn_of_repetition(&mut self, text: &str, token_ids: &[i64], [start, end]: [i64; 2]) {
        if repeats_itself(text, token_ids) {
            let [start, end] = [start, end].map(|frame| frame as f64 * TIME_STEP / 2.0);
            self.warnings.push(TranscriptWarning { kind: TranscriptWarningKind::Repetition, start, end });
        }
    }
}

impl Pipeline {
    /// Transcribes speech. A recording longer than a window (30 s) is transcribed window by window, each starting at
    /// the last timestamp of the one before.
    ///
    /// # Errors
    /// If the model does not transcribe speech, or has no timestamp tokens and the recording is longer than a window.
    pub fn transcribe(
        &self,
        source: &Source,
        language: Option<&str>,
        timestamps: bool,
        config: &GenerationConfig,
    ) -> Result<Transcript> {
        let processor = self.processor(&Modality::AUDIO)?;
        let spectrogram = processor.process(source, &mut ProcessContext::eval())?; // [mels, frames]
        let timestamp_tokens = self.generator()?.timestamp_tokens();
        let frames = spectrogram.size(1)?;
        let window = timestamp_tokens.map_or(frames, |t| t.window_frames);
        let long = frames > window;
        if long && timestamp_tokens.is_none() {
            let expected = "at most 30 s: this model has no timestamp tokens for longer recordings";
            return Err(Error::invalid_argument("audio", format!("{frames} frames"), expected));
        }
        let timestamps = timestamps || long;
        let hook = |tokens: &[i64], prompt_length: usize, scores: &mut [f32]| {
            if let Some(timestamp_tokens) = timestamp_tokens {
                timestamp_tokens.apply(tokens, prompt_length, scores);
            }
        };
        let score_hook = timestamps.then_some(&hook as _);
        let processors = LogitsProcessors { score_hook, ..LogitsProcessors::default() };
        let mut out = Transcript {
            text: String::new(),
            segments: Vec::new(),
            truncated: false,
            warnings: find_silence(&spectrogram)?,
        };
        let mut position = 0;
        // The prompt of the first window, with its detected language, serves all.
        let mut prompt = None;
        while position < frames {
            let length = (frames - position).min(window);
            let media = self.encode_samples(&Modality::AUDIO, &[spectrogram.narrow(1, position, length)?])?;
            let request = Request::Transcribe { language, timestamps };
            let tokens = prompt.take().map_or_else(|| self.prompt(Some(&media), request), Ok)?;
            let found = self.generate_from_prompts(&[(Some(&media), &tokens)], config, &processors, &mut |_, _| {})?;
            prompt = Some(tokens);
            let sequence = &found[0][0];
            out.truncated |= !sequence.finished;
            let Some(timestamp_tokens) = timestamp_tokens.filter(|_| timestamps) else {
                out.text = self.tokenizer.decode(&sequence.token_ids)?;
                out.warn_of_repetition(&out.text.clone(), &sequence.token_ids, [0, length]);
                return Ok(out);
            };
            let (text_start, start) = (out.text.len(), position);
            let (segments, next) = split_segments(&sequence.token_ids, timestamp_tokens, length);
            let offset = position as f64 * TIME_STEP / 2.0;
            for segment in segments {
                let ids = segment.token_ids.into_iter().filter(|id| *id < timestamp_tokens.first);
                let text = self.tokenizer.decode(&ids.collect::<Vec<_>>())?;
                out.text += &text;
                let (start, end) = (segment.start as f64 * TIME_STEP, segment.end as f64 * TIME_STEP);
                out.segments.push(Segment { start: offset + start, end: offset + end, text });
            }
            // A window whose last timestamp is 0 does not tell where the next one starts.
            position += if next > 0 { next } else { length };
            let is_text = |id: &i64| *id < timestamp_tokens.first;
            let ids: Vec<i64> = sequence.token_ids.iter().copied().filter(is_text).collect();
            let text = out.text[text_start..].to_owned();
            out.warn_of_repetition(&text, &ids, [start, position.min(frames)]);
        }
        Ok(out)
    }
}
