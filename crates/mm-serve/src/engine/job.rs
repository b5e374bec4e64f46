//! What a model is asked for.

use super::model::LoadedModel;
use crate::error::ApiError;
use mm_core::{Modality, Pooling, SendTensor};
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

/// Anything else that a model computes; it knows itself whether its client has gone. It receives the error where the
/// model cannot be loaded again.
pub(super) type CallJob = Box<dyn FnOnce(Result<&mut LoadedModel, ApiError>) + Send>;

pub(super) enum Job {
    Embed(EmbedJob),
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
    Call(CallJob),
    Unload,
    Reload,
}
