//! Transcribing recordings of any length, window by window.

use super::{
    pipeline::Pipeline,
    timestamps::{TIME_STEP, split_segments},
    transcript_warnings::{TranscriptWarning, TranscriptWarningKind, find_silence, repeats_itself},
    types::{Prompt, Request},
};
use crate::{
    Error, Result,
    generate::{GeneratedSequence, GenerationConfig, LogitsProcessors},
};
use mm_core::{Modality, ProcessContext, Source, Tensor};
use mm_data::process_catching_panics;

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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// The whole text.
    pub text: String,
    /// The English name of the spoken language: the one that was given or detected, or the only one of the model. `None`
    /// where the model does not say.
    pub language: Option<&'static str>,
    /// Segments, where timestamps were requested or the recording is longer than a window.
    pub segments: Vec<Segment>,
    /// Whether the text of a window was cut off at the maximum number of tokens, or the transcript was no longer wanted.
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

/// How recordings are transcribed.
struct Options<'a> {
    language: Option<&'a str>,
    config: &'a GenerationConfig,
}

/// A recording that is being transcribed.
struct Recording {
    /// `[mels, frames]`.
    spectrogram: Tensor,
    frames: i64,
    /// Frames of a window.
    window: i64,
    timestamps: bool,
    /// The first frame that is not transcribed.
    position: i64,
    /// The prompt of the first window, with its detected language, serves all.
    prompt: Option<Prompt>,
    out: Transcript,
}

impl Recording {
    fn is_one_window(&self) -> bool {
        self.frames <= self.window
    }

    /// Frames of the next window.
    fn window_frames(&self) -> i64 {
        (self.frames - self.position).min(self.window)
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
        let recording = self.open_recording(source, timestamps)?;
        self.finish_recording(recording, &Options { language, config }, &|| false)
    }

    /// Transcribes several recordings; those of at most one window are a batch, unless they are sampled, as they would
    /// then depend on each other. A recording that cannot be transcribed is an error of its own. The spectrograms of
    /// the batch and of one longer recording are in memory. `is_unwanted` says, by its place, whether a transcript is no
    /// longer wanted: it is asked before each recording and window and at every token, and what is unwanted ends there.
    pub fn transcribe_batch(
        &self,
        sources: &[Source],
        language: Option<&str>,
        timestamps: bool,
        config: &GenerationConfig,
        is_unwanted: &dyn Fn(usize) -> bool,
    ) -> Vec<Result<Transcript>> {
        let options = Options { language, config };
        let mut results: Vec<Option<Result<Transcript>>> = sources.iter().map(|_| None).collect();
        let (mut batch, mut places): (Vec<Recording>, Vec<usize>) = Default::default();
        let finish = |batch: &mut Vec<Recording>, places: &mut Vec<usize>, results: &mut [Option<_>]| {
            // What is wrong with one recording is no error of the others: each is then transcribed alone.
            let all_unwanted = || places.iter().all(|place| is_unwanted(*place));
            let _ = batch.len() > 1 && self.transcribe_window(batch, &options, &all_unwanted).is_err();
            for (place, recording) in places.drain(..).zip(batch.drain(..)) {
                results[place] = Some(self.finish_recording(recording, &options, &|| is_unwanted(place)));
            }
        };
        for (place, source) in sources.iter().enumerate() {
            if is_unwanted(place) {
                results[place] = Some(Ok(Transcript { truncated: true, ..Transcript::default() }));
                continue;
            }
            match self.open_recording(source, timestamps) {
                Ok(recording) if recording.is_one_window() && !config.do_sample => {
                    batch.push(recording);
                    places.push(place);
                    if batch.len() == self.max_batch_size() {
                        finish(&mut batch, &mut places, &mut results);
                    }
                }
                Ok(recording) => {
                    results[place] = Some(self.finish_recording(recording, &options, &|| is_unwanted(place)));
                }
                Err(error) => results[place] = Some(Err(error)),
            }
        }
        finish(&mut batch, &mut places, &mut results);
        results.into_iter().flatten().collect()
    }

    fn open_recording(&self, source: &Source, timestamps: bool) -> Result<Recording> {
        let processor = self.processor(&Modality::AUDIO)?;
        let spectrogram = process_catching_panics(processor.as_ref(), source, &mut ProcessContext::eval())?;
        let timestamp_tokens = self.generator()?.timestamp_tokens();
        let frames = spectrogram.size(1)?;
        let window = timestamp_tokens.map_or(frames, |t| t.window_frames);
        let long = frames > window;
        if long && timestamp_tokens.is_none() {
            let expected = "at most 30 s: this model has no timestamp tokens for longer recordings";
            return Err(Error::invalid_argument("audio", format!("{frames} frames"), expected));
        }
        let warnings = find_silence(&spectrogram)?;
        let out = Transcript { warnings, ..Transcript::default() };
        let timestamps = timestamps || long;
        Ok(Recording { spectrogram, frames, window, timestamps, position: 0, prompt: None, out })
    }

    /// Transcribes what is left of a recording, unless it is unwanted.
    fn finish_recording(
        &self,
        mut recording: Recording,
        options: &Options<'_>,
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<Transcript> {
        while recording.position < recording.frames {
            if is_unwanted() {
                recording.out.truncated = true;
                break;
            }
            self.transcribe_window(std::slice::from_mut(&mut recording), options, is_unwanted)?;
        }
        Ok(recording.out)
    }

    /// Transcribes the next window of each recording in one batch; all of them with timestamps, or none. Where all are
    /// unwanted, it ends early.
    fn transcribe_window(
        &self,
        recordings: &mut [Recording],
        options: &Options<'_>,
        is_unwanted: &dyn Fn() -> bool,
    ) -> Result<()> {
        let Options { language, config } = *options;
        let mut windows = Vec::with_capacity(recordings.len());
        for recording in &mut *recordings {
            if is_unwanted() {
                return Ok(());
            }
            let samples = recording.spectrogram.narrow(1, recording.position, recording.window_frames())?;
            let media = self.encode_samples(&Modality::AUDIO, &[samples])?;
            let request = Request::Transcribe { language, timestamps: recording.timestamps };
            let prompt = recording.prompt.take().map_or_else(|| self.prompt(Some(&media), request), Ok)?;
            windows.push((media, prompt));
        }
        let timestamp_tokens = self.generator()?.timestamp_tokens();
        let hook = |tokens: &[i64], prompt_length: usize, scores: &mut [f32]| {
            if let Some(timestamp_tokens) = timestamp_tokens {
                timestamp_tokens.apply(tokens, prompt_length, scores);
            }
        };
        let score_hook = recordings.iter().any(|recording| recording.timestamps).then_some(&hook as _);
        let processors = LogitsProcessors { score_hook, interrupt: Some(is_unwanted), ..LogitsProcessors::default() };
        let rows: Vec<_> = windows.iter().map(|(media, prompt)| (Some(media), prompt)).collect();
        let found = self.generate_from_prompts(&rows, config, &processors, &mut |_, _| {})?;
        for ((recording, (_, prompt)), sequences) in recordings.iter_mut().zip(windows).zip(found) {
            recording.out.language = self.generator()?.spoken_language(&self.tokenizer, &prompt);
            recording.prompt = Some(prompt);
            self.add_window(recording, &sequences[0])?;
        }
        Ok(())
    }

    /// Adds what was generated for a window to the transcript.
    fn add_window(&self, recording: &mut Recording, sequence: &GeneratedSequence) -> Result<()> {
        let length = recording.window_frames();
        let Recording { position, frames, out, .. } = recording;
        out.truncated |= !sequence.finished;
        let timestamp_tokens = self.generator()?.timestamp_tokens().filter(|_| recording.timestamps);
        let Some(timestamp_tokens) = timestamp_tokens else {
            out.text = self.tokenizer.decode(&sequence.token_ids)?;
            out.warn_of_repetition(&out.text.clone(), &sequence.token_ids, [0, length]);
            *position = *frames;
            return Ok(());
        };
        let (text_start, start) = (out.text.len(), *position);
        let (segments, next) = split_segments(&sequence.token_ids, timestamp_tokens, length);
        let offset = start as f64 * TIME_STEP / 2.0;
        for segment in segments {
            let ids = segment.token_ids.into_iter().filter(|id| *id < timestamp_tokens.first);
            let text = self.tokenizer.decode(&ids.collect::<Vec<_>>())?;
            out.text += &text;
            let (start, end) = (segment.start as f64 * TIME_STEP, segment.end as f64 * TIME_STEP);
            out.segments.push(Segment { start: offset + start, end: offset + end, text });
        }
        // A window whose last timestamp is 0 does not tell where the next one starts.
        *position += if next > 0 { next } else { length };
        let is_text = |id: &i64| *id < timestamp_tokens.first;
        let ids: Vec<i64> = sequence.token_ids.iter().copied().filter(is_text).collect();
        let text = out.text[text_start..].to_owned();
        out.warn_of_repetition(&text, &ids, [start, (*position).min(*frames)]);
        Ok(())
    }
}
