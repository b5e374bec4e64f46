//! The context of every command: output mode, device, threads and the registries.

use crate::{exit::Interrupted, output::stderr};
use anyhow::{Context as _, bail};
use mm_core::{Device, Registry};
use mm_data::datasets::DatasetRegistry;
use mm_dist::Environment;
use mm_tasks::{TaskContext, TaskRegistry, alignment::MethodRegistry};
use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, Ordering},
};

/// Registries in which commands look names up.
pub(crate) struct Registries {
    pub(crate) encoders: Registry,
    pub(crate) tasks: TaskRegistry,
    pub(crate) methods: MethodRegistry,
    pub(crate) datasets: DatasetRegistry,
}

/// Global options, resolved once at start-up.
pub(crate) struct Context {
    /// Whether results are printed as JSON lines.
    pub(crate) json: bool,
    /// Number of CPU threads.
    pub(crate) threads: usize,
    /// Every encoder this program knows, including those of outside crates.
    pub(crate) registry: Arc<Registry>,
    /// The methods of `mm align`.
    pub(crate) methods: MethodRegistry,
    /// The data sets of `mm prepare`.
    pub(crate) datasets: DatasetRegistry,
    /// The tasks that a config can name.
    tasks: Arc<TaskRegistry>,
    device: String,
    /// The GPU of this process among several, in place of that of `--device`.
    own_device: OnceLock<Device>,
}

impl Context {
    pub(crate) fn new(json: bool, device: String, threads: usize, registries: Registries) -> Self {
        let Registries { encoders, tasks, methods, datasets } = registries;
        let (registry, tasks) = (Arc::new(encoders), Arc::new(tasks));
        Self { json, threads, registry, methods, datasets, tasks, device, own_device: OnceLock::new() }
    }

    /// The modality of another crate that recognizes a column of a table.
    pub(crate) fn modality_of_column(&self, column: &str, cells: &[&serde_json::Value]) -> Option<String> {
        self.registry.modality_of_column(column, cells).map(ToOwned::to_owned)
    }

    /// The device named by `--device`; that of this process after [`Context::use_own_gpu`].
    pub(crate) fn device(&self) -> anyhow::Result<Device> {
        match self.own_device.get() {
            Some(device) => Ok(*device),
            None => Ok(self.device.parse()?),
        }
    }

    /// Chooses the device of one of several processes that train together: where `--device` asks for a GPU, the one of the
    /// process's number on its host.
    pub(crate) fn use_own_gpu(&self, environment: &Environment) -> anyhow::Result<Device> {
        let device = self.device()?;
        if device == Device::Cpu {
            return Ok(device);
        }
        if self.device.contains(':') {
            bail!(
                "--device: found {} and {} processes, expected cuda, auto or cpu: each process takes the GPU of its number on \
                 the host, LOCAL_RANK",
                self.device,
                environment.world_size
            );
        }
        let own = environment.gpu()?;
        Ok(*self.own_device.get_or_init(|| own))
    }

    /// The encoders and tasks, to be shared with threads that outlive the command.
    pub(crate) fn shared_registries(&self) -> (Arc<Registry>, Arc<TaskRegistry>) {
        (self.registry.clone(), self.tasks.clone())
    }

    /// Context from which tasks build and load models.
    pub(crate) fn tasks(&self) -> anyhow::Result<TaskContext<'_>> {
        Ok(TaskContext { encoders: &self.registry, tasks: &self.tasks, device: self.device()? })
    }
}

/// Installs the Ctrl-C handler and returns the flag that it sets. Work stops after the current `unit` and is saved; a
/// second Ctrl-C exits at once with code 130.
pub(crate) fn stop_on_interrupt(unit: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(Interrupted::EXIT_CODE));
        }
        stderr(format!("note: stopping after {unit} and saving; press Ctrl-C again to stop at once\n"));
    })
    .context("cannot install a Ctrl-C handler")?;
    mm_core::handle_signals_elsewhere();
    Ok(stop)
}
