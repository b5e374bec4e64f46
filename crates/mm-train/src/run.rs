//! The run folder: `config.toml`, `environment.json`, `metrics.jsonl`, TensorBoard events, `checkpoints/`.
//!
//! Every file that is replaced is written beside itself, flushed, and renamed; `metrics.jsonl` is only added to, and what a crash or a
//! resumed run left behind the checkpoint is cut off. One process at a time: the folder is locked.

use crate::{Error, EventWriter, Result};
use mm_core::{Checkpoint, Params, Tensor, checkpoint};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// The step after which it was taken.
    pub step: u64,
    /// The epoch, counted from zero; fractions are parts of it.
    pub epoch: f64,
    /// `train` or the side it was evaluated on.
    pub split: String,
    /// Seconds since the run began, pauses left out.
    pub seconds: f64,
    /// Names and figures.
    pub values: BTreeMap<String, f64>,
}

/// Where a run stands; stored inside its checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Steps made.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Batches done of the epoch after those.
    pub batch: usize,
    /// The best figure so far.
    pub best: Option<f64>,
    /// Evaluations since the best one.
    pub evals_without_improvement: usize,
    /// Seconds spent.
    pub seconds: f64,
    /// Whether the run came to its end.
    pub finished: bool,
}

/// A run's folder, locked while this lives.
pub struct Run {
    folder: PathBuf,
    metrics: File,
    events: EventWriter,
    _lock: File,
}

impl Run {
    /// Makes a new run folder; one that holds a run is refused unless it is to be resumed.
    pub fn create(folder: &Path, config: &toml::Value, environment: serde_json::Value) -> Result<Self> {
        if folder.join("config.toml").exists() {
            return Err(Error::run(folder, "holds a run already; go on with it by --resume, or name another folder"));
        }
        std::fs::create_dir_all(folder.join("checkpoints"))
            .map_err(|e| Error::run(folder, format!("cannot be made: {e}")))?;
        let run = Self::open(folder)?;
        let text = toml::to_string_pretty(config).map_err(|e| Error::run(folder, e))?;
        checkpoint::write_file(&folder.join("environment.json"), format!("{environment:#}\n").as_bytes())?;
        checkpoint::write_file(&folder.join("config.toml"), text.as_bytes())?;
        Ok(run)
    }

    /// Takes up a run that is there.
    pub fn resume(folder: &Path) -> Result<Self> {
        if !folder.join("config.toml").exists() {
            return Err(Error::run(folder, "holds no run (no config.toml), so there is nothing to resume"));
        }
        Self::open(folder)
    }

    fn open(folder: &Path) -> Result<Self> {
        let bad = |path: &Path, e: std::io::Error| Error::run(path, format!("cannot be written: {e}"));
        let lock_path = folder.join("lock");
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(|e| bad(&lock_path, e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::run(folder, "is in use by another process; wait for it, or name another folder"));
            }
            Err(TryLockError::Error(e)) => return Err(bad(&lock_path, e)),
        }
        // What a kill left half-written; nobody else writes here while the lock is held.
        for place in [folder.to_owned(), folder.join("checkpoints")] {
            for entry in std::fs::read_dir(place).into_iter().flatten().filter_map(Result::ok) {
                if entry.file_name().to_string_lossy().ends_with(".partial") {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
        let path = folder.join("metrics.jsonl");
        let metrics = File::options().create(true).append(true).open(&path).map_err(|e| bad(&path, e))?;
        Ok(Self { folder: folder.to_owned(), metrics, events: EventWriter::create(folder)?, _lock: lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where a checkpoint of this name lies.
    pub fn checkpoint_path(folder: &Path, name: &str) -> PathBuf {
        folder.join("checkpoints").join(format!("{name}.safetensors"))
    }

    /// Adds a line of figures.
    pub fn log(&mut self, metric: &MetricRecord) -> Result<()> {
        let bad =
            |e: std::io::Error| Error::run(self.folder.join("metrics.jsonl"), format!("could not be written: {e}"));
        let line = serde_json::to_string(metric).map_err(|e| Error::run(&self.folder, e))? + "\n";
        self.metrics.write_all(line.as_bytes()).map_err(bad)?;
        for (name, value) in &metric.values {
            self.events.scalar(&format!("{}/{name}", metric.split), *value, metric.step).map_err(bad)?;
        }
        self.events.flush().map_err(bad)
    }

    /// All lines of figures of a run; a last line that a crash cut short is left out.
    pub fn read_metrics(folder: &Path) -> Result<Vec<MetricRecord>> {
        let path = folder.join("metrics.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::run(&path, e))?;
        Ok(text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect())
    }

    /// Cuts off the lines after `step`: they will be written again.
    pub fn truncate_metrics(&mut self, step: u64) -> Result<()> {
        let kept = Self::read_metrics(&self.folder)?.into_iter().filter(|m| m.step <= step);
        let text: String = kept.filter_map(|m| serde_json::to_string(&m).ok()).map(|l| l + "\n").collect();
        let path = self.folder.join("metrics.jsonl");
        checkpoint::write_file(&path, text.as_bytes())?;
        self.metrics = File::options().append(true).open(&path).map_err(|e| Error::run(&path, e))?;
        Ok(())
    }

    /// Writes a checkpoint: tensors, and where the run stands.
    pub fn save_checkpoint(&self, name: &str, tensors: &[(String, Tensor)], saved: &TrainState) -> Result<()> {
        let text = serde_json::to_string(saved).map_err(|e| Error::run(&self.folder, e))?;
        Ok(checkpoint::save(
            &Self::checkpoint_path(&self.folder, name),
            tensors,
            &[("run", text), ("format", "pt".into())],
        )?)
    }

    /// Opens a checkpoint of a run: its tensors, and where the run stood.
    pub fn open_checkpoint(folder: &Path, name: &str) -> Result<(Checkpoint, TrainState)> {
        let path = Self::checkpoint_path(folder, name);
        if !path.exists() {
            return Err(Error::run(
                folder,
                format!("has no checkpoint `{name}` yet; train it first (mm train … --run {})", folder.display()),
            ));
        }
        let checkpoint = Checkpoint::open(&path)?;
        let text = checkpoint.metadata().get("run").ok_or_else(|| Error::run(&path, "is no checkpoint of a run"))?;
        let saved =
            serde_json::from_str(text).map_err(|e| Error::run(&path, format!("is no checkpoint of a run: {e}")))?;
        Ok((checkpoint, saved))
    }

    /// Takes a run's best weights, or its last where it was stopped before it was measured.
    pub fn load_weights(folder: &Path, params: &Params) -> Result<()> {
        let name = if Self::checkpoint_path(folder, "best").exists() { "best" } else { "last" };
        Ok(params.load(&Self::open_checkpoint(folder, name)?.0, "model.")?)
    }

    /// Deletes all but the newest `keep` of the numbered checkpoints.
    pub fn prune_checkpoints(&self, keep: usize) -> Result<()> {
        let folder = self.folder.join("checkpoints");
        let listing = std::fs::read_dir(&folder).map_err(|e| Error::run(&folder, e))?;
        let mut numbered: Vec<PathBuf> = listing
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("step-")))
            .collect();
        numbered.sort();
        for old in numbered.iter().take(numbered.len().saturating_sub(keep)) {
            std::fs::remove_file(old).map_err(|e| Error::run(old, e))?;
        }
        Ok(())
    }
}

/// What a run depends on beside its config: program, machine, threads, git's commit and whether the tree was changed.
pub fn environment(extra: serde_json::Value) -> serde_json::Value {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    serde_json::json!({
        "mm": env!("CARGO_PKG_VERSION"),
        "command": std::env::args().collect::<Vec<_>>(),
        "git_commit": git(&["rev-parse", "HEAD"]),
        "git_changed": git(&["status", "--porcelain"]).map(|s| !s.is_empty()),
        "threads": mm_core::num_threads(),
        "gpus": mm_core::Device::cuda_device_count(),
        "system": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "more": extra,
    })
}
