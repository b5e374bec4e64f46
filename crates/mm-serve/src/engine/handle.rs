//! A model as requests see it: what it is, and how work gets to its thread.

use super::{
    batch::Cost,
    job::{Answered, Call, EncodeJob, Job, Overrides, Pending, Prompt, Question, Speech},
    model::{Capability, LoadedModel},
    queue::Queue,
    sample_cache::SampleCache,
};
use crate::{
    embed::check_width,
    error::{ApiError, Kind, shortened},
};
use mm_core::{Modality, Processor};
use mm_reason::{Generation, pretrained::Transcript};
use mm_repr::{Classes, ContrastiveHead, NamedPrompt, text::PairProcessor};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// What a loaded model is.
pub(crate) struct ModelInfo {
    pub(crate) name: String,
    /// How often it was loaded in another version than before.
    pub(crate) generation: u64,
    pub(crate) family: String,
    pub(crate) capabilities: Vec<Capability>,
    pub(crate) modalities: Vec<Modality>,
    /// Its own classes, or the one whose score a reranker gives.
    pub(crate) classes: Classes,
    /// Raw value → sample, for models that embed, and for checkpoints that generate or choose texts.
    pub(crate) processors: BTreeMap<Modality, Arc<dyn Processor>>,
    /// Raw value → sample, for runs that read raw values themselves.
    pub(crate) sample_caches: BTreeMap<Modality, Vec<Arc<SampleCache>>>,
    /// Dimensions of the vectors of each modality, for checkpoints that embed.
    pub(crate) widths: BTreeMap<Modality, usize>,
    /// How a query and a text become tokens, for rerankers.
    pub(crate) pairs: Option<Arc<PairProcessor>>,
    /// How pairs of vectors are scored, for models that embed several modalities into one space.
    pub(crate) contrastive_head: Option<ContrastiveHead>,
    /// The prompts of texts that requests may name.
    pub(crate) prompts: BTreeMap<String, NamedPrompt>,
    /// Changes whenever the vectors or scores would; none of runs without vectors and of models that generate.
    pub(crate) fingerprint: Option<String>,
}

impl ModelInfo {
    pub(crate) fn can(&self, capability: Capability) -> bool {
        self.capabilities.contains(&capability)
    }

    /// The processor of a modality.
    pub(crate) fn processor(&self, modality: &Modality) -> Result<&Arc<dyn Processor>, ApiError> {
        self.processors.get(modality).ok_or_else(|| {
            let known = self.modalities.iter().map(Modality::name).collect::<Vec<_>>().join(" and ");
            ApiError::new(Kind::Invalid, format!("model {} takes {known}, not {modality}", self.name))
                .with_param("input")
        })
    }
}

impl ModelInfo {
    /// Refuses more dimensions than the vectors of these modalities have, as far as their number is known before they are
    /// computed: of runs it is not.
    pub(crate) fn check_dimensions(&self, dimensions: Option<usize>, modalities: &[Modality]) -> Result<(), ApiError> {
        let width = modalities.iter().filter_map(|modality| self.widths.get(modality)).min();
        match (dimensions, width) {
            (Some(dimensions), Some(width)) => check_width(dimensions, *width, &self.name),
            _ => Ok(()),
        }
    }

    /// The prompt of a name.
    pub(crate) fn prompt(&self, name: &str) -> Result<&NamedPrompt, ApiError> {
        self.prompts.get(name).ok_or_else(|| {
            let known: Vec<String> = self.prompts.keys().map(|known| format!("{known:?}")).collect();
            let expected = match known.as_slice() {
                [] => format!("none: model {} has no prompts", self.name),
                known => format!("one of the prompts of model {}: {}", self.name, known.join(", ")),
            };
            ApiError::invalid("prompt_name", format!("{:?}", shortened(name)), expected)
        })
    }
}

/// Images and videos that are decoded before a model takes them, those of several batches: decoded values may take much
/// more memory than their files.
const MAX_DECODED: usize = 64;

/// A recording counts as so many images: half an hour takes 115 MB at 16 kHz, and 346 MB at 48 kHz, as transcripts keep it.
const RECORDING_PERMITS: usize = 8;

/// A model of the server.
pub(crate) struct ModelHandle {
    pub(super) name: String,
    info: RwLock<Option<Arc<ModelInfo>>>,
    pub(super) queue: Queue,
    /// One permit for each value that is being decoded, or is decoded and waits.
    decoded: Arc<Semaphore>,
}

impl ModelHandle {
    pub(super) fn new(name: &str) -> Self {
        let decoded = Arc::new(Semaphore::new(MAX_DECODED));
        Self { name: name.to_owned(), info: RwLock::default(), queue: Queue::default(), decoded }
    }

    /// Waits until so many images and videos, and recordings, may be decoded for the model, where they are decoded before it
    /// takes them (captions, answers, chats, predictions and transcripts); a request with more than [`MAX_DECODED`] waits until
    /// no other has any. They count until the permit is dropped.
    pub(crate) async fn admit_decoded(
        &self,
        images: usize,
        recordings: usize,
    ) -> Result<Arc<OwnedSemaphorePermit>, ApiError> {
        let permits = (images + recordings * RECORDING_PERMITS).clamp(1, MAX_DECODED) as u32;
        // The semaphore is never closed.
        let permit = self.decoded.clone().acquire_many_owned(permits).await.map_err(ApiError::internal)?;
        Ok(Arc::new(permit))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What it is, once it is loaded.
    pub(crate) fn info(&self) -> Result<Arc<ModelInfo>, ApiError> {
        let loading = || ApiError::new(Kind::Unavailable, format!("model {} is being loaded", self.name));
        self.loaded().ok_or_else(|| loading().with_retry_after(5))
    }

    /// What it is; `None` before it is loaded for the first time.
    pub(super) fn loaded(&self) -> Option<Arc<ModelInfo>> {
        self.info.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on it is another one.
    pub(super) fn set_info(&self, info: ModelInfo) {
        *self.info.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(info));
    }

    /// Number of requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Asks for what an encoder computes of samples, in a batch with those of other requests.
    pub(crate) fn submit(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<Vec<Vec<f32>>, ApiError>>) -> EncodeJob,
    ) -> Result<oneshot::Receiver<Result<Vec<Vec<f32>>, ApiError>>, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.push(Job::Encode(job(reply)))?;
        Ok(answer)
    }

    /// Asks for the text of a prompt, which is generated in a batch with those of other requests. It is not generated where
    /// its client disconnected before.
    pub(crate) fn generate(
        &self,
        prompt: Prompt,
        overrides: Overrides,
    ) -> Result<impl Future<Output = Result<Generation, ApiError>> + use<>, ApiError> {
        let cost = prompt.cost();
        self.ask((prompt, overrides), cost, Job::Generate)
    }

    /// Asks a question, which is answered in a batch with those of other requests.
    pub(crate) async fn answer(&self, question: Question) -> Result<Answered, ApiError> {
        let cost = question.medium.cost();
        self.ask(question, cost, Job::Answer)?.await
    }

    /// Asks for a transcript, which is made in a batch with those of other requests.
    pub(crate) async fn transcribe(&self, speech: Speech) -> Result<Transcript, ApiError> {
        let cost = Cost { rows: 1, seconds: speech.seconds, ..Cost::default() };
        self.ask(speech, cost, Job::Transcribe)?.await
    }

    fn ask<I, O>(
        &self,
        input: I,
        cost: Cost,
        job: fn(Box<Pending<I, O>>) -> Job,
    ) -> Result<impl Future<Output = Result<O, ApiError>> + use<I, O>, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.push(job(Box::new(Pending { input, cost, reply })))?;
        Ok(async { answer.await.map_err(|_| no_result())? })
    }

    /// The result of any other computation, which is skipped where the client disconnects before it begins.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        compute: impl FnOnce(&mut LoadedModel) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.push(Job::Call(Box::new(Computation { compute, reply })))?;
        answer.await.map_err(|_| no_result())?
    }

    /// Work whose results go elsewhere, for instance into a stream; it is skipped where `is_closed` before it begins.
    pub(crate) fn spawn(
        &self,
        is_closed: impl Fn() -> bool + Send + 'static,
        compute: impl FnOnce(Result<&mut LoadedModel, ApiError>) + Send + 'static,
    ) -> Result<(), ApiError> {
        self.push(Job::Call(Box::new(Streamed { is_closed, compute })))
    }

    fn push(&self, job: Job) -> Result<(), ApiError> {
        self.info()?;
        let closed = |_| ApiError::new(Kind::Unavailable, "the server is about to stop");
        self.queue.push(job).map_err(closed)
    }
}

/// A computation with one result.
struct Computation<T, F> {
    compute: F,
    reply: oneshot::Sender<Result<T, ApiError>>,
}

impl<T: Send, F: FnOnce(&mut LoadedModel) -> Result<T, ApiError> + Send> Call for Computation<T, F> {
    fn is_closed(&self) -> bool {
        self.reply.is_closed()
    }

    fn run(self: Box<Self>, model: Result<&mut LoadedModel, ApiError>) {
        let Self { compute, reply } = *self;
        if !reply.is_closed() {
            drop(reply.send(model.and_then(compute)));
        }
    }
}

/// A computation whose results go elsewhere.
struct Streamed<C, F> {
    is_closed: C,
    compute: F,
}

impl<C: Fn() -> bool + Send, F: FnOnce(Result<&mut LoadedModel, ApiError>) + Send> Call for Streamed<C, F> {
    fn is_closed(&self) -> bool {
        (self.is_closed)()
    }

    fn run(self: Box<Self>, model: Result<&mut LoadedModel, ApiError>) {
        let Self { is_closed, compute } = *self;
        if !is_closed() {
            drop(is_closed);
            compute(model);
        }
    }
}

/// The error of a computation that panicked.
fn no_result() -> ApiError {
    ApiError::internal("the model's thread gave no result")
}
