//! All models of a server, by name.

use super::{
    context::LoadContext,
    handle::{ModelHandle, ModelInfo},
    memory::Memory,
    model::Capability,
    reload, worker,
};
use crate::{
    Result,
    blocking::Running,
    config::ModelConfig,
    error::{ApiError, Kind},
};
use mm_core::Modality;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// The models of a server.
pub(crate) struct ModelPool {
    models: Vec<Arc<ModelHandle>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    is_closed: Arc<AtomicBool>,
}

impl ModelPool {
    /// Starts a thread for each model; they load one after another, in the order given.
    pub(crate) fn start(configs: &[ModelConfig], context: &LoadContext) -> std::io::Result<(Self, Loading)> {
        let (sender, results) = mpsc::channel();
        let (mut models, mut threads) = (Vec::new(), Vec::new());
        let memory = Arc::new(Memory::new(context.max_model_bytes));
        let mut previous: Option<mpsc::Receiver<()>> = None;
        for config in configs {
            let model = Arc::new(ModelHandle::new(&config.name));
            models.push(model.clone());
            let (path, context, sender) = (config.path.clone(), context.clone(), sender.clone());
            let memory = memory.clone();
            let (done, next) = mpsc::channel();
            let before = previous.replace(next);
            let thread = std::thread::Builder::new().name(format!("model {}", config.name));
            threads.push(thread.spawn(move || {
                // The sender before is dropped once its model is loaded.
                before.map(|before| before.recv());
                let loaded = worker::load(&model, &path, &context, &memory);
                let (worker, result) = match loaded {
                    Ok(worker) => (Some(worker), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                // The server may have been stopped meanwhile.
                drop((sender.send(result), sender, done));
                if let Some(worker) = worker {
                    worker.run();
                }
            })?);
        }
        let is_closed = Arc::new(AtomicBool::new(false));
        if context.reload_seconds > 0 {
            let watched = models.iter().cloned().zip(configs.iter().map(|config| config.path.clone())).collect();
            let (stopped, seconds) = (is_closed.clone(), context.reload_seconds);
            let thread = std::thread::Builder::new().name("reload".into());
            threads.push(thread.spawn(move || reload::watch(watched, seconds, &stopped))?);
        }
        Ok((Self { models, threads: Mutex::new(threads), is_closed }, Loading { results, count: configs.len() }))
    }

    pub(crate) fn models(&self) -> &[Arc<ModelHandle>] {
        &self.models
    }

    /// Whether every model is loaded.
    pub(crate) fn is_ready(&self) -> bool {
        self.models.iter().all(|model| model.loaded().is_some())
    }

    /// The model of a name, which must have the capability; without a name the first that has it.
    pub(crate) fn find(
        &self,
        name: Option<&str>,
        capability: Capability,
    ) -> Result<(&ModelHandle, Arc<ModelInfo>), ApiError> {
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
        let model = self.by_name(name)?;
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

    /// The model of a name.
    pub(crate) fn by_name(&self, name: &str) -> Result<&ModelHandle, ApiError> {
        let known = || self.models.iter().map(|model| model.name());
        let unknown = || ApiError::unknown("model", name, known()).with_param("model").with_code("model_not_found");
        let mut models = self.models.iter().map(AsRef::as_ref);
        models.find(|model: &&ModelHandle| model.name() == name).ok_or_else(unknown)
    }

    /// The model of a name; without a name the first that has the capability and takes all of the modalities, else the
    /// first that has the capability, whose own error says what it takes.
    pub(crate) fn find_for(
        &self,
        name: Option<&str>,
        capability: Capability,
        modalities: &[Modality],
    ) -> Result<(&ModelHandle, Arc<ModelInfo>), ApiError> {
        if name.is_none_or(str::is_empty) {
            for model in &self.models {
                let info = model.info()?;
                if info.can(capability) && modalities.iter().all(|modality| info.modalities.contains(modality)) {
                    return Ok((model, info));
                }
            }
        }
        self.find(name, capability)
    }

    /// Like [`Self::find_for`], with another capability where there is no model with the preferred one.
    pub(crate) fn find_for_either(
        &self,
        name: Option<&str>,
        [preferred, other]: [Capability; 2],
        modalities: &[Modality],
    ) -> Result<(&ModelHandle, Arc<ModelInfo>), ApiError> {
        match self.find_for(name, preferred, modalities) {
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Invalid) => {
                self.find_for(name, other, modalities)
            }
            // An error while models are loaded too: it is not known yet what they can.
            found => found,
        }
    }

    /// The model whose vectors are those of a fingerprint.
    pub(crate) fn by_fingerprint(&self, fingerprint: &str) -> Option<(&ModelHandle, Arc<ModelInfo>)> {
        let mut loaded = self.models.iter().filter_map(|model| Some((model.as_ref(), model.loaded()?)));
        loaded.find(|(_, info)| info.fingerprint.as_deref() == Some(fingerprint))
    }

    /// Takes no more work; what somebody waits for is still done. Returns whether all threads have ended within a time,
    /// and what decodes or waits for files.
    pub(crate) fn close(&self, time: Duration) -> bool {
        const PAUSE: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + time;
        self.is_closed.store(true, Ordering::Relaxed);
        self.models.iter().for_each(|model| model.queue.close());
        let threads = self.threads.lock().map(|mut threads| std::mem::take(&mut *threads)).unwrap_or_default();
        while Running::any() || !threads.iter().all(JoinHandle::is_finished) {
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(PAUSE);
        }
        // A model's panic is caught where it happens.
        threads.into_iter().for_each(|thread| drop(thread.join()));
        true
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
