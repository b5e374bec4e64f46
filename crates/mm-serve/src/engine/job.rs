//! What a model is asked for.

use super::{batch::Cost, medium::Medium, model::LoadedModel, room::Room};
use crate::{conversation::Conversation, error::ApiError};
use mm_core::{Modality, SendTensor, Source};
use mm_reason::{Attribution, Generation, ScoredAnswer, generate::GenerationConfig, pretrained::Transcript};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What an encoder computes of each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Its vector. `skipped` is the number of tokens of a prompt that the model does not pool; those of its default
    /// prompt when absent.
    Embedding { skipped: Option<i64> },
    /// The vectors of its positions, one after the other.
    Features,
    /// The scores of the model's own classes, before softmax or sigmoid.
    Classes,
    /// The score of a query and a text, before the sigmoid.
    Relevance,
}

/// What is to be computed of the samples of one request.
pub(crate) struct EncodeJob {
    pub(crate) modality: Modality,
    pub(crate) output: Output,
    pub(crate) samples: Vec<SendTensor>,
    /// Of the model by whose processor the samples were made.
    pub(crate) generation: u64,
    pub(crate) cost: Cost,
    /// Takes one row for each sample.
    pub(crate) reply: oneshot::Sender<Result<Vec<Vec<f32>>, ApiError>>,
}

/// What a text is generated for.
pub(crate) enum Prompt {
    /// The caption of an image or video, and how it begins.
    Caption { medium: Box<Medium>, start: Option<String> },
    /// The next message of a conversation.
    Chat(Arc<Conversation>),
}

impl Prompt {
    /// What its images and videos cost.
    pub(super) fn cost(&self) -> Cost {
        match self {
            Self::Caption { medium, .. } => medium.cost(),
            Self::Chat(conversation) => {
                let pixels = conversation.media.iter().map(|medium| medium.cost().pixels).sum();
                Cost { rows: 1, pixels, ..Cost::default() }
            }
        }
    }
}

/// The options of a request, over those of the model and for the room that a conversation leaves.
pub(crate) type Overrides =
    Box<dyn FnOnce(&GenerationConfig, Option<Room>) -> Result<GenerationConfig, ApiError> + Send + 'static>;

/// A question about an image or a video.
pub(crate) struct Question {
    pub(crate) medium: Medium,
    pub(crate) question: String,
    /// The answers to choose among; any when empty.
    pub(crate) candidates: Vec<String>,
    /// Whether to show what the answer depends on, for models that can.
    pub(crate) explain: bool,
}

/// The scored answers to a question, and what the best one depends on.
pub(crate) type Answered = (Vec<ScoredAnswer>, Option<Attribution>);

/// A recording to be transcribed.
pub(crate) struct Speech {
    pub(crate) source: Source,
    pub(crate) seconds: f64,
    /// The spoken language; detected when absent.
    pub(crate) language: Option<String>,
    pub(crate) timestamps: bool,
    /// Sampled at this temperature; the most likely tokens when absent.
    pub(crate) temperature: Option<f64>,
    /// Held for as long as the decoded recording.
    pub(crate) permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// One request of those that a model computes together.
pub(crate) struct Pending<I, O> {
    pub(super) input: I,
    pub(super) cost: Cost,
    pub(super) reply: oneshot::Sender<Result<O, ApiError>>,
}

impl<I, O> Pending<I, O> {
    /// Replies; a client that disconnected takes no reply.
    pub(super) fn answer(self, result: Result<O, ApiError>) {
        drop(self.reply.send(result));
    }
}

/// A text to be generated.
pub(super) type GenerateJob = Pending<(Prompt, Overrides), Generation>;
pub(super) type AnswerJob = Pending<Question, Answered>;
pub(super) type TranscribeJob = Pending<Speech, Transcript>;

/// Anything else that a model computes for a client.
pub(super) trait Call: Send {
    /// Whether the client disconnected.
    fn is_closed(&self) -> bool;

    /// Computes it. It receives the error where the model cannot be loaded again.
    fn run(self: Box<Self>, model: Result<&mut LoadedModel, ApiError>);
}

pub(super) type CallJob = Box<dyn Call>;

pub(super) enum Job {
    Encode(EncodeJob),
    Generate(Box<GenerateJob>),
    Answer(Box<AnswerJob>),
    Transcribe(Box<TranscribeJob>),
    Call(CallJob),
    /// Another model needs its memory.
    Unload,
    /// Its files have changed.
    Reload,
}

impl Job {
    /// Whether its client disconnected.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Encode(job) => job.reply.is_closed(),
            Self::Generate(job) => job.reply.is_closed(),
            Self::Answer(job) => job.reply.is_closed(),
            Self::Transcribe(job) => job.reply.is_closed(),
            Self::Call(call) => call.is_closed(),
            Self::Unload | Self::Reload => false,
        }
    }

    /// What its values cost; nothing of work that is not computed together with that of other requests.
    pub(super) fn cost(&self) -> Cost {
        match self {
            Self::Encode(job) => job.cost,
            Self::Generate(job) => job.cost,
            Self::Answer(job) => job.cost,
            Self::Transcribe(job) => job.cost,
            Self::Call(_) | Self::Unload | Self::Reload => Cost::default(),
        }
    }
}

/// What a model computes next.
pub(super) enum Work {
    /// Samples of one modality of which the same is computed, as one batch.
    Encode(Vec<EncodeJob>),
    /// Texts, of which those with the same options are one batch.
    Generate(Vec<GenerateJob>),
    /// Questions, of which those with the same options are one batch.
    Answer(Vec<AnswerJob>),
    /// Recordings, of which those with the same options are one batch.
    Transcribe(Vec<TranscribeJob>),
    Call(CallJob),
    Unload,
    Reload,
}
