//! All models of a server, by name.

use super::{
    handle::{ModelHandle, ModelInfo},
    model::Capability,
    queue::Queue,
    worker,
};
use crate::{
    Result,
    config::ModelConfig,
    error::{ApiError, Kind},
};
use mm_core::{Device, Registry};
use mm_tasks::TaskRegistry;
use std::{
    sync::{Arc, OnceLock, mpsc},
    thread::JoinHandle,
};

/// What models are loaded with.
#[derive(Clone)]
pub(crate) struct LoadContext {
    pub(crate) encoders: Arc<Registry>,
    pub(crate) tasks: Arc<TaskRegistry>,
    pub(crate) device: Device,
    pub(crate) max_batch_tokens: usize,
}

/// The models of a server.
pub(crate) struct ModelPool {
    models: Vec<Arc<ModelHandle>>,
    threads: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl ModelPool {
    /// Starts a thread for each model; they load one after another, in the order given.
    pub(crate) fn start(configs: &[ModelConfig], context: &LoadContext) -> std::io::Result<(Self, Loading)> {
        let (sender, results) = mpsc::channel();
        let (mut models, mut threads) = (Vec::new(), Vec::new());
        let mut previous: Option<mpsc::Receiver<()>> = None;
        for config in configs {
            let model =
                Arc::new(ModelHandle { name: config.name.clone(), info: OnceLock::new(), queue: Queue::default() });
            models.push(model.clone());
            let (done, next) = mpsc::channel();
            let before = previous.replace(next);
            let (config, context, sender) = (config.clone(), context.clone(), sender.clone());
            let thread = std::thread::Builder::new().name(format!("model {}", config.name));
            threads.push(thread.spawn(move || {
                // The sender before is dropped once its model is loaded.
                before.map(|before| before.recv());
                worker::run(&config.name, &config.path, &context, &model.queue, |loaded| {
                    let result = loaded.map(|info| drop(model.info.set(info)));
                    drop((sender.send(result), done));
                });
            })?);
        }
        Ok((Self { models, threads: std::sync::Mutex::new(threads) }, Loading { results, count: configs.len() }))
    }

    pub(crate) fn models(&self) -> &[Arc<ModelHandle>] {
        &self.models
    }

    /// Whether every model is loaded.
    pub(crate) fn is_ready(&self) -> bool {
        self.models.iter().all(|model| model.info.get().is_some())
    }

    /// The model of a name, which must have the capability; without a name the first that has it.
    pub(crate) fn find(
        &self,
        name: Option<&str>,
        capability: Capability,
    ) -> Result<(&ModelHandle, &ModelInfo), ApiError> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            for model in &self.models {
                let info = model.info()?;
                if info.can(capability) {
                    return Ok((model, info));
                }
            }
            let message = format!("no model of this server {}; GET /v1/models lists what each can", capability.verb());
            return Err(ApiError::new(Kind::NotFound, message).with_param("model").with_code("model_not_found"));
        };
        let known = || self.models.iter().map(|model| model.name());
        let Some(model) = self.models.iter().find(|model| model.name() == name) else {
            return Err(ApiError::unknown("model", name, known()).with_param("model").with_code("model_not_found"));
        };
        let info = model.info()?;
        if !info.can(capability) {
            let can = info.capabilities.iter().map(|one| one.verb()).collect::<Vec<_>>().join(", ");
            let message = format!(
                "model {name} is of family {}, which {can}; expected one that {}",
                info.family,
                capability.verb()
            );
            return Err(ApiError::new(Kind::Invalid, message).with_param("model"));
        }
        Ok((model, info))
    }

    /// The model whose vectors are those of a fingerprint.
    pub(crate) fn by_fingerprint(&self, fingerprint: &str) -> Option<(&ModelHandle, &ModelInfo)> {
        let loaded = self.models.iter().filter_map(|model| Some((model.as_ref(), model.info.get()?)));
        loaded.into_iter().find(|(_, info)| info.fingerprint.as_deref() == Some(fingerprint))
    }

    /// Takes no more work; what waits is still done. Returns once it is.
    pub(crate) fn close(&self) {
        self.models.iter().for_each(|model| model.queue.close());
        let threads = self.threads.lock().map(|mut threads| std::mem::take(&mut *threads)).unwrap_or_default();
        // A model's panic is caught where it happens.
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

/// Models that are being loaded.
pub(crate) struct Loading {
    results: mpsc::Receiver<Result<()>>,
    count: usize,
}

impl Loading {
    /// Waits until every model is loaded.
    ///
    /// # Errors
    /// That of the first that cannot be.
    pub(crate) fn wait(self) -> Result<()> {
        // A thread that panicked has dropped its sender.
        let loaded = self.results.into_iter().collect::<Result<Vec<()>>>()?.len();
        if loaded == self.count {
            return Ok(());
        }
        Err(crate::Error::setting("--model", "a model whose loading panicked", "one that can be loaded"))
    }
}
