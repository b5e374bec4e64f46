//! Inputs and outputs of a pipeline.

use mm_core::{Error, Input, Modality, Result, Tensor, nn::decoder::DecoderState};
use serde_json::Value;
use std::cell::RefCell;

/// The request to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request<'a> {
    /// To caption an image or video; the caption starts with this text.
    Caption(Option<&'a str>),
    /// To answer a question.
    Question(&'a str),
    /// To continue a conversation: messages as chat templates take them.
    Chat(&'a Value),
    /// To transcribe speech.
    Transcribe {
        /// The spoken language, as a code or name; detected when absent.
        language: Option<&'a str>,
        /// Whether to generate timestamps.
        timestamps: bool,
    },
}

/// Encoded images, videos or audio, computed once and used for any number of requests.
pub struct EncodedMedia {
    /// Features `[rows, positions, dim]`; those of several images or videos follow one another.
    pub(crate) values: Tensor,
    /// The images or videos whose features they are.
    pub(crate) items: Vec<MediaItem>,
    /// The tokens up to the end of the last image and the decoder's caches after them, reused by the next request.
    pub(crate) prefix: RefCell<Option<(Vec<i64>, DecoderState)>>,
}

/// One of the images or videos of an [`EncodedMedia`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MediaItem {
    /// Number of its features.
    pub(crate) features: i64,
    /// Number of patches (time, rows, columns), where that differs between inputs.
    pub(crate) grid: Option<[i64; 3]>,
    /// Whether it is a video, whatever the number of its frames.
    pub(crate) is_video: bool,
}

impl EncodedMedia {
    pub(crate) fn new(values: Tensor) -> Self {
        let features = values.shape().get(1).copied().unwrap_or_default();
        let item = MediaItem { features, grid: None, is_video: false };
        Self { values, items: vec![item], prefix: RefCell::new(None) }
    }

    pub(crate) fn with_grid(values: Tensor, grid: [i64; 3], is_video: bool) -> Self {
        let mut media = Self::new(values);
        media.items.iter_mut().for_each(|item| *item = MediaItem { grid: Some(grid), is_video, ..*item });
        media
    }

    /// The patches of the first, where their number differs between inputs.
    pub(crate) fn grid(&self) -> Option<[i64; 3]> {
        self.items.first().and_then(|item| item.grid)
    }

    /// Several as one.
    pub(super) fn join(list: Vec<Self>) -> Result<Self> {
        let values = Tensor::cat(&list.iter().map(|media| &media.values).collect::<Vec<_>>(), 1)?;
        let items = list.into_iter().flat_map(|media| media.items).collect();
        Ok(Self { values, items, prefix: RefCell::new(None) })
    }
}

/// A request as token ids.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prompt {
    /// Tokens of a question that has an encoder of its own.
    pub question_ids: Vec<i64>,
    /// Tokens at the start of the decoder's input.
    pub decoder_input_ids: Vec<i64>,
    /// Whether the generated text continues the prompt's, so that the prompt is part of the output.
    pub(crate) part_of_output: bool,
}

/// A batch to train on.
#[derive(Debug)]
pub struct TrainBatch<'a> {
    /// Modality of `values`.
    pub modality: &'a Modality,
    /// Processed images or audio, `[rows, …]`.
    pub values: &'a Tensor,
    /// Tokens of the questions `[rows, tokens]`, with their mask.
    pub question: Option<&'a Input>,
    /// Input of the decoder, `[rows, tokens]`; not needed by classifiers.
    pub decoder_input_ids: Option<&'a Tensor>,
    /// Whether the model is training.
    pub train: bool,
}

impl TrainBatch<'_> {
    pub(super) fn decoder_input_ids(&self) -> Result<&Tensor> {
        self.decoder_input_ids.ok_or_else(|| Error::Sample("a batch without decoder_input_ids".into()))
    }

    pub(super) fn question(&self) -> Result<&Input> {
        self.question.ok_or_else(|| Error::Sample("a batch without questions".into()))
    }
}

/// Attribution: how much each part of the input contributed to an answer.
#[derive(Debug, Clone)]
pub struct Attribution {
    /// One value for each patch, row by row; not negative.
    pub patches: Vec<f32>,
    /// Number of rows and columns of patches.
    pub grid: [usize; 2],
    /// Tokens of the text, each with its value.
    pub words: Vec<(String, f32)>,
    /// Attention over the patches at each step of a reasoning network, with the name of the step.
    pub steps: Vec<(String, Vec<f32>)>,
}

/// The timestamp tokens of a speech recognition model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimestampTokens {
    /// The token of 0 s. Each following token is one step of 0.02 s later.
    pub(crate) first: i64,
    /// The end token. Tokens between it and `first` are special.
    pub(crate) eos: i64,
    /// The latest first timestamp of a window, in steps.
    pub(crate) max_initial: Option<i64>,
    /// Spectrogram frames in a window.
    pub(crate) window_frames: i64,
}
