//! The thread of a model: loads it, and does the work of its queue until that is closed.

use super::{
    batch::Budget,
    handle::ModelInfo,
    model::{Capability, LoadedModel},
    pool::LoadContext,
    queue::{EmbedJob, Queue, Work},
};
use crate::{Error, error::ApiError};
use mm_core::{Device, Modality, Processor, Tensor};
use mm_tasks::TaskContext;
use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    time::Instant,
};

/// Rows that are computed together; the model divides them into batches of similar length.
const MAX_ROWS: usize = 256;

/// What the thread found out about its model.
pub(super) type Loaded = Result<ModelInfo, Error>;

/// Loads a model, reports it, and works until the queue is closed.
pub(super) fn run(name: &str, folder: &Path, context: &LoadContext, queue: &Queue, loaded: impl FnOnce(Loaded)) {
    let task_context = TaskContext { encoders: &context.encoders, tasks: &context.tasks, device: context.device };
    let failed = |source| Error::Model { name: name.to_owned(), path: folder.to_owned(), source };
    let mut model = match LoadedModel::load(folder, &task_context) {
        Ok(model) => model,
        Err(source) => return loaded(Err(failed(source))),
    };
    match describe(name, &model) {
        Ok(info) => loaded(Ok(info)),
        Err(error) => return loaded(Err(failed(Box::new(error)))),
    }
    let budget = Budget { tokens: context.max_batch_tokens, rows: MAX_ROWS };
    while let Some(work) = queue.take(budget) {
        let started = Instant::now();
        // A panic ends the requests of this work (their replies are dropped), not the model.
        let done = catch_unwind(AssertUnwindSafe(|| match work {
            Work::Embed(jobs) => embed(&model, jobs, name),
            Work::Call(call) => call(&mut model),
        }));
        if done.is_err() {
            tracing::error!("model {name}: a computation panicked");
        }
        metrics::histogram!("mm_model_seconds", "model" => name.to_owned()).record(started.elapsed());
    }
}

fn describe(name: &str, model: &LoadedModel) -> mm_tasks::Result<ModelInfo> {
    let capabilities = model.capabilities();
    let modalities = model.modalities();
    let mut processors: BTreeMap<Modality, Arc<dyn Processor>> = BTreeMap::new();
    let mut fingerprint = None;
    if capabilities.contains(&Capability::Embed)
        && let Ok(embedder) = model.embedder()
    {
        for modality in &modalities {
            processors.insert(modality.clone(), embedder.processor(modality)?);
        }
        fingerprint = Some(embedder.fingerprint()?);
    }
    Ok(ModelInfo { name: name.to_owned(), family: model.family(), capabilities, modalities, processors, fingerprint })
}

/// Computes the vectors of several requests as one batch. Where that fails, each is computed alone, so that one
/// request's values do not fail another's.
fn embed(model: &LoadedModel, jobs: Vec<EmbedJob>, name: &str) {
    let jobs: Vec<(EmbedJob, Vec<Tensor>)> = jobs
        .into_iter()
        .map(|mut job| {
            let samples = std::mem::take(&mut job.samples).into_iter().map(Tensor::from).collect();
            (job, samples)
        })
        .collect();
    let all: Vec<Tensor> = jobs.iter().flat_map(|(_, samples)| samples.iter().cloned()).collect();
    metrics::histogram!("mm_batch_rows", "model" => name.to_owned()).record(all.len() as f64);
    let (modality, pooling) = (&jobs[0].0.modality, jobs[0].0.pooling);
    let compute = |samples: &[Tensor]| -> Result<Vec<Vec<f32>>, ApiError> {
        let vectors = model.embedder()?.embed_samples(modality, samples, pooling)?.to_device(Device::Cpu)?;
        let dim = vectors.size(-1)?.max(1) as usize;
        Ok(vectors.to_vec::<f32>()?.chunks(dim).map(<[f32]>::to_vec).collect())
    };
    match compute(&all) {
        Ok(vectors) => {
            let mut vectors = vectors.into_iter();
            for (job, samples) in jobs {
                // A client that has gone takes no reply.
                let _ = job.reply.send(Ok(vectors.by_ref().take(samples.len()).collect()));
            }
        }
        Err(error) if jobs.len() == 1 => {
            jobs.into_iter().for_each(|(job, _)| drop(job.reply.send(Err(error.clone()))));
        }
        Err(_) => {
            let results: Vec<_> = jobs.iter().map(|(_, samples)| compute(samples)).collect();
            jobs.into_iter().zip(results).for_each(|((job, _), result)| drop(job.reply.send(result)));
        }
    }
}
