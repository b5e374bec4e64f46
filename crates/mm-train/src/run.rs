//! The run folder: `config.toml`, `environment.json`, `metrics.jsonl`, `sessions.jsonl`, TensorBoard events,
//! `checkpoints/`.
//!
//! Files are replaced atomically: written to a temporary file, flushed, renamed. `metrics.jsonl` is append-only; a
//! resumed run truncates it to the step of its checkpoint. The folder is locked, so that one process at a time uses it.

use crate::{Error, EventWriter, Result};
use mm_core::{
    Checkpoint, Params, Tensor,
    checkpoint::{self, FolderLock},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

/// One line of `metrics.jsonl`: metrics at one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricRecord {
    /// Number of optimizer steps done.
    pub step: u64,
    /// Number of epochs done, including the fraction of the current one.
    pub epoch: f64,
    /// The split: `train` or `valid`.
    pub split: String,
    /// Seconds of training, without the time between an interruption and its resumption.
    pub seconds: f64,
    /// Metrics by name.
    pub values: BTreeMap<String, f64>,
}

/// The state of a training run; stored in its checkpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainState {
    /// Number of optimizer steps done.
    pub step: u64,
    /// Number of epochs done.
    pub epoch: u64,
    /// Number of batches done in the current epoch.
    pub batch: usize,
    /// The best value so far of the metric that selects the best checkpoint.
    pub best: Option<f64>,
    /// Number of evaluations since the best one.
    pub evals_without_improvement: usize,
    /// Seconds of training.
    pub seconds: f64,
    /// Whether training is finished: all epochs are done, or it stopped early.
    pub finished: bool,
}

/// A run folder; it is locked for other processes until this value is dropped.
pub struct Run {
    folder: PathBuf,
    metrics: File,
    events: EventWriter,
    _lock: FolderLock,
}

impl Run {
    /// Creates a new run folder with its config and a record of the environment.
    ///
    /// # Errors
    /// When the folder holds a run already, is in use by another process, or cannot be written.
    pub fn create(folder: &Path, config: &toml::Value, environment: serde_json::Value) -> Result<Self> {
        if folder.join("config.toml").exists() {
            return Err(Error::run(folder, "holds a run already; continue it with --resume, or choose another folder"));
        }
        std::fs::create_dir_all(folder.join("checkpoints"))
            .map_err(|e| Error::run(folder, format!("cannot be created: {e}")))?;
        let run = Self::open(folder)?;
        let text = toml::to_string_pretty(config).map_err(|e| Error::run(folder, e))?;
        checkpoint::write_atomic(&folder.join("environment.json"), format!("{environment:#}\n").as_bytes())?;
        checkpoint::write_atomic(&folder.join("config.toml"), text.as_bytes())?;
        Ok(run)
    }

    /// Opens an existing run folder.
    ///
    /// # Errors
    /// When the folder holds no run, is in use by another process, or cannot be written.
    pub fn resume(folder: &Path) -> Result<Self> {
        if !folder.join("config.toml").exists() {
            return Err(Error::run(folder, "holds no run (no config.toml), so there is nothing to resume"));
        }
        Self::open(folder)
    }

    fn open(folder: &Path) -> Result<Self> {
        let lock = FolderLock::acquire(folder)?;
        // Remove files that a killed process left half-written; no other process writes here while the lock is held.
        for dir in [folder.to_owned(), folder.join("checkpoints")] {
            for entry in std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
                if entry.file_name().to_string_lossy().ends_with(".partial") {
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
        let path = folder.join("metrics.jsonl");
        let metrics = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(|e| Error::run(&path, format!("cannot be written: {e}")))?;
        Ok(Self { folder: folder.to_owned(), metrics, events: EventWriter::create(folder)?, _lock: lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a run's checkpoint: `last`, `best` or `step-00000100`.
    pub fn checkpoint_path(folder: &Path, name: &str) -> PathBuf {
        folder.join("checkpoints").join(format!("{name}.safetensors"))
    }

    /// Appends a line to `metrics.jsonl` and its values to the TensorBoard events.
    ///
    /// # Errors
    /// When a file cannot be written.
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

    /// Appends a line to `sessions.jsonl`: that training started, or continued, at a step in some processes.
    pub(crate) fn log_session(&self, step: u64, world_size: usize) -> Result<()> {
        let path = self.folder.join("sessions.jsonl");
        let line = serde_json::json!({"step": step, "world_size": world_size, "threads": mm_core::num_threads()});
        let file = File::options().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{line}"));
        written.map_err(|e| Error::run(&path, format!("cannot be written: {e}")))
    }

    /// All lines of a run's `metrics.jsonl`; a last line that a crash truncated is left out.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_metrics(folder: &Path) -> Result<Vec<MetricRecord>> {
        let path = folder.join("metrics.jsonl");
        let text = std::fs::read_to_string(&path).map_err(|e| Error::run(&path, e))?;
        Ok(text.lines().filter_map(|l| serde_json::from_str(l).ok()).collect())
    }

    /// Removes the lines of `metrics.jsonl` after `step`, which a resumed run writes again.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn truncate_metrics(&mut self, step: u64) -> Result<()> {
        let kept = Self::read_metrics(&self.folder)?.into_iter().filter(|m| m.step <= step);
        let text: String = kept.filter_map(|m| serde_json::to_string(&m).ok()).map(|l| l + "\n").collect();
        let path = self.folder.join("metrics.jsonl");
        checkpoint::write_atomic(&path, text.as_bytes())?;
        self.metrics = File::options().append(true).open(&path).map_err(|e| Error::run(&path, e))?;
        Ok(())
    }

    /// Writes a checkpoint, tensors and the training state, atomically.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_checkpoint(&self, name: &str, tensors: &[(String, Tensor)], state: &TrainState) -> Result<()> {
        let text = serde_json::to_string(state).map_err(|e| Error::run(&self.folder, e))?;
        Ok(checkpoint::save(
            &Self::checkpoint_path(&self.folder, name),
            tensors,
            &[("run", text), ("format", "pt".into())],
        )?)
    }

    /// Where several processes train together: copies a checkpoint of rank 0's run folder into those of the others.
    ///
    /// # Errors
    /// When a file cannot be read or written, or a process ended or does not come.
    pub fn share_checkpoint(&self, name: &str) -> Result<()> {
        let Some(group) = mm_dist::current() else { return Ok(()) };
        let path = Self::checkpoint_path(&self.folder, name);
        let is_sender = group.rank() == 0 && path.exists();
        let own = if is_sender { std::fs::read(&path).map_err(|e| Error::run(&path, e))? } else { Vec::new() };
        let bytes = group.broadcast_bytes(&own, 0)?;
        if group.rank() > 0 && !bytes.is_empty() {
            checkpoint::write_atomic(&path, &bytes)?;
        }
        Ok(())
    }

    /// Opens a run's checkpoint: its tensors and the training state.
    ///
    /// # Errors
    /// When there is no such checkpoint, or the file is not a run's checkpoint.
    pub fn open_checkpoint(folder: &Path, name: &str) -> Result<(Checkpoint, TrainState)> {
        let path = Self::checkpoint_path(folder, name);
        if !path.exists() {
            return Err(Error::run(folder, format!("has no checkpoint `{name}` yet; train it first")));
        }
        let checkpoint = Checkpoint::open(&path)?;
        let text = checkpoint.metadata().get("run").ok_or_else(|| Error::run(&path, "is not a checkpoint of a run"))?;
        let state =
            serde_json::from_str(text).map_err(|e| Error::run(&path, format!("is not a checkpoint of a run: {e}")))?;
        Ok((checkpoint, state))
    }

    /// Loads a run's best weights into `params`, or its last ones if it was stopped before the first evaluation.
    ///
    /// # Errors
    /// When there is no checkpoint, or its tensors do not match the parameters.
    pub fn load_weights(folder: &Path, params: &Params) -> Result<()> {
        let name = if Self::checkpoint_path(folder, "best").exists() { "best" } else { "last" };
        Ok(params.load(&Self::open_checkpoint(folder, name)?.0, "model.")?)
    }

    /// Deletes all but the newest `keep_last` of the numbered checkpoints.
    ///
    /// # Errors
    /// When a file cannot be deleted.
    pub fn prune_checkpoints(&self, keep_last: usize) -> Result<()> {
        let folder = self.folder.join("checkpoints");
        let listing = std::fs::read_dir(&folder).map_err(|e| Error::run(&folder, e))?;
        let mut numbered: Vec<PathBuf> = listing
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("step-")))
            .collect();
        numbered.sort();
        for old in numbered.iter().take(numbered.len().saturating_sub(keep_last)) {
            std::fs::remove_file(old).map_err(|e| Error::run(old, e))?;
        }
        Ok(())
    }
}

/// Arguments as text; what is not UTF-8 is replaced.
fn command_line(arguments: impl Iterator<Item = OsString>) -> Vec<String> {
    arguments.map(|argument| argument.to_string_lossy().into_owned()).collect()
}

/// The environment of a run: program version, command line, machine, number of threads, git commit; `extra` is stored
/// unchanged.
pub fn environment(extra: serde_json::Value) -> serde_json::Value {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    serde_json::json!({
        "mm": env!("CARGO_PKG_VERSION"),
        "command": command_line(std::env::args_os()),
        "git_commit": git(&["rev-parse", "HEAD"]),
        "git_dirty": git(&["-c", "core.fsmonitor=false", "status", "--porcelain"]).map(|s| !s.is_empty()),
        "threads": mm_core::num_threads(),
        "gpus": mm_core::Device::cuda_device_count(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "extra": extra,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn arguments_that_are_not_utf_8_are_recorded() {
        use std::os::unix::ffi::OsStringExt;
        let arguments = [b"mm".to_vec(), b"caf\xe9.csv".to_vec()].map(OsString::from_vec);
        assert_eq!(command_line(arguments.into_iter()), ["mm", "caf\u{fffd}.csv"]);
        assert!(!environment(serde_json::Value::Null)["command"].as_array().unwrap().is_empty());
    }
}
