//! What a model is asked for.

use super::model::LoadedModel;
use crate::{conversation::Conversation, error::ApiError};
use mm_core::{Modality, Pooling, SendTensor, Source};
use mm_reason::{Generation, generate::GenerationConfig};
use std::sync::Arc;
use tokio::sync::oneshot;

/// Vectors to be computed for the samples of one request.
pub(crate) struct EmbedJob {
    pub(crate) modality: Modality,
    pub(crate) pooling: Option<Pooling>,
    pub(crate) samples: Vec<SendTensor>,
    /// Of the model by whose processor the samples were made.
    pub(crate) generation: u64,
    /// Tokens of its longest sample.
    pub(crate) longest: usize,
    pub(crate) reply: oneshot::Sender<Result<Vec<Vec<f32>>, ApiError>>,
}

/// What a text is generated for.
pub(crate) enum Prompt {
    /// The caption of an image or video, and how it begins.
    Caption { modality: Modality, source: Source, start: Option<String> },
    /// The next message of a conversation.
    Chat(Arc<Conversation>),
}

/// The options of a request, over those of the model.
pub(crate) type Overrides = Box<dyn FnOnce(&GenerationConfig) -> Result<GenerationConfig, ApiError> + Send + 'static>;

/// A text to be generated.
pub(super) struct GenerateJob {
    pub(super) prompt: Prompt,
    pub(super) overrides: Overrides,
    pub(super) reply: oneshot::Sender<Result<Generation, ApiError>>,
}

/// Anything else that a model computes; it knows itself whether its client has gone. It receives the error where the
/// model cannot be loaded again.
pub(super) type CallJob = Box<dyn FnOnce(Result<&mut LoadedModel, ApiError>) + Send>;

pub(super) enum Job {
    Embed(EmbedJob),
    Generate(Box<GenerateJob>),
    Call(CallJob),
    /// Another model needs its memory.
    Unload,
    /// Its files have changed.
    Reload,
}

/// What a model computes next.
pub(super) enum Work {
    /// Jobs of one modality and pooling, as one batch.
    Embed(Vec<EmbedJob>),
    /// Texts, of which those with the same options are one batch.
    Generate(Vec<GenerateJob>),
    Call(CallJob),
    Unload,
    Reload,
}
