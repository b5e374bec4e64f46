//! A server from its settings to its end.

use crate::{
    Error, Result, ServeConfig,
    auth::Keys,
    engine::{Budget, LoadContext, ModelPool},
    index::Index,
    listen, routes,
    state::AppState,
    urls::UrlAccess,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use mm_core::{Device, Registry};
use mm_tasks::TaskRegistry;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};

/// Upper bounds of the histograms of times, in seconds.
const SECONDS: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];
/// Upper bounds of the histogram of rows in a batch.
const ROWS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// Interval at which histogram samples are aggregated; without a scraper they would accumulate otherwise.
const METRICS_PAUSE: Duration = Duration::from_secs(5);
/// How long models may take to end what they compute for clients that disconnected.
const CLOSING: Duration = Duration::from_secs(2);
/// How long models that are being loaded may take where another one cannot be.
const LOADING: Duration = Duration::from_secs(600);

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Stopped {
    /// Nothing runs any more.
    Completely,
    /// A thread still computes what nobody waits for, or loads a model: a program ends with `_exit`, since the thread may
    /// use what the libraries free at a usual end.
    WithThreads,
}

/// A server that is not running yet.
///
/// ```no_run
/// use mm_serve::{ModelConfig, ServeConfig, Server};
/// let model = ModelConfig { name: "clip".into(), path: "clip-vit-base-patch32".into() };
/// let config = ServeConfig { models: vec![model], ..ServeConfig::default() };
/// let server = Server::new(config, mm_tasks::registry(), mm_tasks::tasks(), mm_core::Device::Cpu);
/// let stopped = server.run(|address| println!("http://{address}"), || println!("ready"))?;
/// println!("{stopped:?}");
/// # Ok::<(), mm_serve::Error>(())
/// ```
pub struct Server {
    config: ServeConfig,
    context: LoadContext,
}

/// What settings name.
struct Opened {
    index: Option<Index>,
    keys: Keys,
    urls: UrlAccess,
}

impl Server {
    /// A server with the encoders and tasks of these registries.
    pub fn new(
        config: ServeConfig,
        encoders: impl Into<Arc<Registry>>,
        tasks: impl Into<Arc<TaskRegistry>>,
        device: Device,
    ) -> Self {
        let context = LoadContext {
            encoders: Arc::new(encoders.into().for_loaded_models()),
            tasks: tasks.into(),
            device,
            budget: Budget::new(&config.limits),
            max_model_bytes: config.limits.max_model_bytes,
            reload_seconds: config.reload_seconds,
        };
        Self { config, context }
    }

    /// Listens, loads the models, and answers requests until SIGTERM or SIGINT. `on_listening` receives the address at
    /// once; `on_ready` is called when every model is loaded.
    ///
    /// # Errors
    /// When a setting is wrong, the address is taken, or a model or the store cannot be opened.
    pub fn run(
        self,
        on_listening: impl FnOnce(SocketAddr),
        on_ready: impl FnOnce() + Send + 'static,
    ) -> Result<Stopped> {
        self.config.check()?;
        let settings = self.open()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let address = SocketAddr::new(self.config.address, self.config.port);
        let cannot_listen = |source| Error::Listen { address: address.to_string(), source };
        let listener = runtime.block_on(TcpListener::bind(address)).map_err(cannot_listen)?;
        on_listening(listener.local_addr().map_err(cannot_listen)?);
        let (pool, loading) = ModelPool::start(&self.config.models, &self.context)?;
        let state = Arc::new(self.state(pool, settings)?);
        let (router, loaded) = (routes::router(&state), state.clone());
        // Loading goes on while probes are answered; a model that cannot be loaded ends the server.
        let (sender, failed) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("loading".into()).spawn(move || {
            match loading.wait().and_then(|()| loaded.check_store()) {
                Ok(()) => {
                    on_ready();
                    // Kept until the end: the server stops when it is dropped.
                    std::mem::forget(sender);
                }
                // The server may have been stopped meanwhile.
                Err(error) => drop(sender.send(error)),
            }
        })?;
        let metrics = state.metrics.clone();
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(METRICS_PAUSE).await;
                metrics.run_upkeep();
            }
        });
        let served = runtime.block_on(async {
            tokio::select! {
                served = listen::serve(listener, router, &state) => served,
                failed = failed => Err(failed.unwrap_or_else(|_| Error::System(std::io::Error::other("loading panicked")))),
            }
        });
        // Closes the connections that are left, so that models see that nobody waits.
        runtime.shutdown_background();
        let is_closed = state.pool.close(if served.is_ok() { CLOSING } else { LOADING });
        served.map(|()| if is_closed { Stopped::Completely } else { Stopped::WithThreads })
    }

    /// What can be wrong with settings is found before the address is printed.
    fn open(&self) -> Result<Opened> {
        let config = &self.config;
        Ok(Opened {
            index: config.store.as_deref().map(|store| Index::open(store, config.writable)).transpose()?,
            keys: Keys::new(&config.keys)?,
            urls: UrlAccess::new(&config.fetch_from)?,
        })
    }

    fn state(&self, pool: ModelPool, Opened { index, keys, urls }: Opened) -> Result<AppState> {
        let config = &self.config;
        let decoders = rayon::ThreadPoolBuilder::new()
            .num_threads(mm_core::available_threads())
            .thread_name(|number| format!("decode {number}"))
            .build()
            .map_err(|error| Error::System(std::io::Error::other(error)))?;
        Ok(AppState {
            pool,
            index,
            limits: config.limits.clone(),
            keys,
            urls,
            metrics: recorder()?,
            device: format!("{:?}", self.context.device).to_lowercase(),
            is_local: config.address.is_loopback(),
            decoders,
            requests: Arc::new(Semaphore::new(config.limits.max_requests)),
            bodies: Arc::new(Semaphore::new(config.limits.body_units())),
            draining: AtomicBool::new(false),
            has_stopped: AtomicBool::new(false),
        })
    }
}

/// The recorder of metrics; a process has one.
fn recorder() -> Result<PrometheusHandle> {
    static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
    let mut recorder = RECORDER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = recorder.as_ref() {
        return Ok(handle.clone());
    }
    let failed = |error| Error::System(std::io::Error::other(error));
    let buckets = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS);
    let buckets = buckets.and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_rows".into()), &ROWS));
    let handle = buckets.and_then(PrometheusBuilder::install_recorder).map_err(failed)?;
    metrics::describe_counter!("mm_requests_total", "requests by route and status");
    metrics::describe_counter!("mm_requests_cancelled_total", "requests whose client disconnected before the answer");
    metrics::describe_histogram!("mm_request_seconds", "time from a request to the head of its answer");
    metrics::describe_histogram!("mm_model_seconds", "time of one computation of a model");
    metrics::describe_histogram!("mm_batch_rows", "rows that were computed together");
    metrics::describe_gauge!("mm_queue_requests", "requests that wait for a model");
    metrics::describe_gauge!("mm_requests_in_progress", "requests that are worked on or wait");
    Ok(recorder.insert(handle).clone())
}
