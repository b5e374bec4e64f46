//! The thread of a model: loads it, and does the work of its queue until that is closed.

use super::{
    answers,
    context::LoadContext,
    handle::{ModelHandle, ModelInfo},
    job::{EncodeJob, Pending, Work},
    memory::{Memory, weight_bytes},
    model::{Capability, LoadResult, LoadedModel},
    sample_cache::Readers,
    texts, transcripts,
};
use crate::{
    Error,
    error::{ApiError, Kind},
};
use mm_core::{Modality, Processor, Tensor, describe_error};
use mm_tasks::TaskContext;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Instant,
};

/// The thread of a model, once that is loaded.
pub(super) struct Worker<'a> {
    handle: &'a Arc<ModelHandle>,
    folder: &'a Path,
    context: &'a LoadContext,
    memory: &'a Memory,
    /// `None` while another model needs its memory.
    model: Option<LoadedModel>,
}

/// Loads a model for the first time.
///
/// # Errors
/// When it cannot be loaded.
pub(super) fn load<'a>(
    handle: &'a Arc<ModelHandle>,
    folder: &'a Path,
    context: &'a LoadContext,
    memory: &'a Memory,
) -> Result<Worker<'a>, Error> {
    let mut worker = Worker { handle, folder, context, memory, model: None };
    match worker.load() {
        Ok(()) => Ok(worker),
        Err(source) => Err(Error::Model { name: handle.name.clone(), path: folder.to_owned(), source }),
    }
}

impl Worker<'_> {
    /// Works until the queue is closed.
    pub(super) fn run(mut self) {
        let name = self.handle.name.clone();
        while let Some(work) = self.handle.queue.take(self.context.budget) {
            let started = Instant::now();
            // A panic ends the requests of this work (their replies are dropped), not the model.
            let done = catch_unwind(AssertUnwindSafe(|| self.work(work)));
            if done.is_err() {
                tracing::error!("model {name}: a computation panicked");
            }
            metrics::histogram!("mm_model_seconds", "model" => name.clone()).record(started.elapsed());
        }
        self.unload();
    }

    fn work(&mut self, work: Work) {
        match work {
            Work::Unload => self.unload(),
            Work::Reload => self.reload(),
            Work::Encode(jobs) => match self.model() {
                Ok(_) => self.encode(jobs),
                Err(error) => jobs.into_iter().for_each(|job| drop(job.reply.send(Err(error.clone())))),
            },
            Work::Generate(jobs) => self.together(jobs, texts::generate),
            Work::Answer(jobs) => self.together(jobs, answers::answer),
            Work::Transcribe(jobs) => self.together(jobs, transcripts::transcribe),
            Work::Call(call) => call.run(self.model()),
        }
    }

    /// Computes requests together; all get the error where the model cannot be loaded again.
    fn together<I, O>(
        &mut self,
        jobs: Vec<Pending<I, O>>,
        compute: impl FnOnce(&mut LoadedModel, Vec<Pending<I, O>>, &str),
    ) {
        let name = self.handle.name.clone();
        match self.model() {
            Ok(model) => compute(model, jobs, &name),
            Err(error) => jobs.into_iter().for_each(|job| job.answer(Err(error.clone()))),
        }
    }

    /// The model, loaded again where it was unloaded.
    fn model(&mut self) -> Result<&mut LoadedModel, ApiError> {
        if self.model.is_none() {
            self.load().map_err(|error| self.not_loaded(error.as_ref()))?;
        }
        self.memory.touch(&self.handle.name);
        self.model.as_mut().ok_or_else(|| ApiError::internal("a model that was loaded is missing"))
    }

    fn not_loaded(&self, error: &(dyn std::error::Error + 'static)) -> ApiError {
        tracing::error!("model {} cannot be loaded again: {}", self.handle.name, describe_error(error));
        ApiError::new(Kind::Unavailable, format!("model {} cannot be loaded at the moment", self.handle.name))
    }

    /// Loads the model once there is room for it.
    fn load(&mut self) -> LoadResult<()> {
        self.memory.enter(self.handle, weight_bytes(self.folder));
        let loaded = self.read();
        if loaded.is_err() {
            self.memory.leave(&self.handle.name);
        }
        self.model = Some(loaded?);
        Ok(())
    }

    /// Reads the files, and notes where the model is another one than before.
    fn read(&self) -> LoadResult<LoadedModel> {
        let LoadContext { encoders, tasks, device, .. } = self.context;
        let readers = Readers::default();
        let encoders = readers.registry(encoders);
        let model = LoadedModel::load(self.folder, &TaskContext { encoders: &encoders, tasks, device: *device })?;
        let mut info = describe(&self.handle.name, &model)?;
        if model.reads_sources() {
            info.sample_caches = readers.by_modality();
        }
        match self.handle.loaded() {
            Some(before) if before.fingerprint.is_some() && before.fingerprint == info.fingerprint => {
                info.generation = before.generation;
            }
            before => info.generation = before.map_or(0, |before| before.generation + 1),
        }
        self.handle.set_info(info);
        Ok(model)
    }

    /// Loads the model again, whose files have changed; the old one stays where that fails.
    fn reload(&mut self) {
        if self.model.is_none() {
            // It is read when it is needed.
            return;
        }
        match self.read() {
            Ok(model) => {
                self.model = Some(model);
                tracing::info!("model {} was loaded again: its files have changed", self.handle.name);
            }
            Err(error) => tracing::error!(
                "model {} stays as it was; its files have changed and cannot be loaded: {}",
                self.handle.name,
                describe_error(error.as_ref())
            ),
        }
    }

    fn unload(&mut self) {
        if self.model.take().is_some() {
            tracing::info!("model {} has left the memory", self.handle.name);
        }
        self.memory.leave(&self.handle.name);
    }

    /// Encodes the samples of several requests; those of another version of the model are refused.
    fn encode(&self, jobs: Vec<EncodeJob>) {
        let (Some(model), generation) = (&self.model, self.handle.loaded().map_or(0, |info| info.generation)) else {
            return;
        };
        let (jobs, others): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.generation == generation);
        for job in others {
            let message = format!("model {} was loaded again meanwhile; try again", self.handle.name);
            drop(job.reply.send(Err(ApiError::new(Kind::Unavailable, message))));
        }
        if !jobs.is_empty() {
            encode(model, jobs, &self.handle.name);
        }
    }
}

fn describe(name: &str, model: &LoadedModel) -> mm_tasks::Result<ModelInfo> {
    let capabilities = model.capabilities();
    let modalities = model.modalities();
    let (mut processors, mut widths) = (BTreeMap::<Modality, Arc<dyn Processor>>::new(), BTreeMap::new());
    let encoder = model.encoder();
    // Of a reranker too: the samples of requests are those of this version.
    let mut fingerprint = encoder.map(|encoder| encoder.fingerprint().map(str::to_owned)).transpose()?;
    if capabilities.contains(&Capability::Embed)
        && let Ok(embedder) = model.embedder()
    {
        for modality in &modalities {
            processors.insert(modality.clone(), embedder.processor(modality)?);
            if let Some(tower) = encoder.and_then(|encoder| encoder.tower(modality).ok()) {
                widths.insert(modality.clone(), tower.encoder.embedding_dim() as usize);
            }
        }
        fingerprint = Some(embedder.fingerprint()?);
    }
    if let LoadedModel::Pipeline(pipeline) = model {
        for modality in &modalities {
            processors.insert(modality.clone(), pipeline.processor(modality)?.clone());
        }
    }
    // A model that takes no text has neither.
    let texts = encoder.and_then(|encoder| encoder.tower(&Modality::TEXT).ok());
    Ok(ModelInfo {
        name: name.to_owned(),
        generation: 0,
        family: model.family(),
        capabilities,
        modalities,
        classes: model.classes(),
        processors,
        sample_caches: BTreeMap::new(),
        widths,
        pairs: texts.and_then(|tower| tower.pairs.clone()),
        contrastive_head: encoder.and_then(|encoder| encoder.contrastive_head),
        prompts: texts.map(|tower| tower.prompts.clone()).unwrap_or_default(),
        fingerprint,
    })
}

/// Encodes the samples of several requests as one batch. Where that fails, each is computed alone, so that one
/// request's values do not fail another's.
fn encode(model: &LoadedModel, jobs: Vec<EncodeJob>, name: &str) {
    let jobs: Vec<(EncodeJob, Vec<Tensor>)> = jobs
        .into_iter()
        .map(|mut job| {
            let samples = std::mem::take(&mut job.samples).into_iter().map(Tensor::from).collect();
            (job, samples)
        })
        .collect();
    let all: Vec<Tensor> = jobs.iter().flat_map(|(_, samples)| samples.iter().cloned()).collect();
    metrics::histogram!("mm_batch_rows", "model" => name.to_owned()).record(all.len() as f64);
    let (modality, output) = (&jobs[0].0.modality, jobs[0].0.output);
    let compute = |samples: &[Tensor]| {
        let computed = catch_unwind(AssertUnwindSafe(|| model.encode_samples(modality, samples, output)));
        computed.unwrap_or_else(|_| Err(ApiError::internal(format!("model {name}: a computation panicked"))))
    };
    match compute(&all) {
        Ok(rows) => {
            let mut rows = rows.into_iter();
            for (job, samples) in jobs {
                // A client that disconnected takes no reply.
                let _ = job.reply.send(Ok(rows.by_ref().take(samples.len()).collect()));
            }
        }
        Err(error) if jobs.len() == 1 => {
            jobs.into_iter().for_each(|(job, _)| drop(job.reply.send(Err(error.clone()))));
        }
        Err(error) => {
            error.log();
            let results: Vec<_> = jobs.iter().map(|(_, samples)| compute(samples)).collect();
            jobs.into_iter().zip(results).for_each(|((job, _), result)| drop(job.reply.send(result)));
        }
    }
}
