//! What pipelines have done below an output folder: their completed steps, and the outputs that they made and may replace.

use super::{
    key::Key,
    made::{Windows, created, file_time, free, move_files},
    step::Step,
};
use crate::{
    error::{Error, Result},
    fetch::hex,
    paths::{create_dir, exists, lock, write_file},
    report::note,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// The folder of the state, below the output folder.
pub(super) const FOLDER: &str = ".pipeline";

/// A step that was completed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its name at the time, which does not matter to the next run.
    pub(super) step: String,
    pub(super) command: String,
    /// The digest of each input, by path.
    pub(super) inputs: BTreeMap<String, String>,
    outputs: Vec<String>,
    pub(super) seconds: f64,
    /// Seconds since 1970.
    finished: u64,
}

impl Record {
    /// How long ago the step was completed, in words.
    pub(super) fn age(&self) -> String {
        let seconds = now().saturating_sub(self.finished);
        match seconds {
            0..120 => format!("{seconds} s ago"),
            120..7200 => format!("{} min ago", seconds / 60),
            7200..172_800 => format!("{} h ago", seconds / 3600),
            _ => format!("{} days ago", seconds / 86400),
        }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// The file, which all pipelines with this output folder share.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Data {
    /// Each output that a step made, relative to the output folder, with the digest of the step that wrote it last.
    outputs: BTreeMap<String, String>,
    /// Completed steps by their digest.
    completed: BTreeMap<String, Record>,
    /// When each output came to be, as its step left it.
    #[serde(default)]
    created: BTreeMap<String, SystemTime>,
    /// When steps ran.
    #[serde(default)]
    windows: Windows,
}

/// The state below an output folder.
pub(super) struct State {
    out: PathBuf,
    data: Data,
}

impl State {
    /// The state of an output folder; an empty one where there is none.
    pub(super) fn open(out: &Path) -> Self {
        let mut state = Self { out: out.to_owned(), data: Data::default() };
        state.reload();
        state
    }

    fn file(&self, name: &str) -> PathBuf {
        self.out.join(FOLDER).join(name)
    }

    fn reload(&mut self) {
        let file = self.file("state.json");
        let wrong = |error: &dyn std::fmt::Display| {
            note(format!("{}: not a state ({error}), so every step counts as new", file.display()));
            Data::default()
        };
        self.data = match std::fs::read_to_string(&file) {
            Ok(text) => serde_json::from_str(&text).unwrap_or_else(|error| wrong(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Data::default(),
            Err(error) => wrong(&error),
        };
    }

    /// Changes the state as it is on disk: another pipeline may have changed it.
    fn update(&mut self, change: impl FnOnce(&mut Self)) -> Result<()> {
        create_dir(&self.out.join(FOLDER))?;
        let _lock = lock(&self.file("state.lock"), "waiting for the state of the pipelines …")?;
        self.reload();
        change(self);
        let text = serde_json::to_string_pretty(&self.data).map_err(|e| Error::Other(e.to_string()))?;
        write_file(&self.file("state.json"), text.as_bytes())
    }

    /// The name of an output in the state.
    fn name(&self, path: &Path) -> String {
        path.strip_prefix(&self.out).unwrap_or(path).display().to_string()
    }

    /// The record of a completed step, if its outputs are still there and are still its own.
    pub(super) fn completed(&self, step: &Step, key: &Key) -> Result<&Record, Incomplete> {
        let Some(record) = self.data.completed.get(&key.digest) else {
            let latest = self.data.completed.values().filter(|r| r.step == step.name).max_by_key(|r| r.finished);
            return Err(Incomplete::NeverRun(latest.cloned()));
        };
        for output in &step.outputs {
            if !exists(output) {
                return Err(Incomplete::Missing(output.clone()));
            }
            if self.data.outputs.get(&self.name(output)) != Some(&key.digest) {
                return Err(Incomplete::Overwritten(output.clone()));
            }
        }
        Ok(record)
    }

    /// Why the outputs of a step would not be replaced: one of them exists and no pipeline made it.
    pub(super) fn refusal(&self, step: &Step) -> Option<String> {
        let path = step.outputs.iter().find(|path| exists(path) && !self.is_made(path))?;
        Some(format!(
            "the output {} exists and was not made by a pipeline, so it is not replaced; move or delete it, or choose another \
             path",
            path.display()
        ))
    }

    /// Records that a step begins: its outputs belong to it. Those that are to be written afresh are deleted; files in them
    /// that came to be while no step ran are moved to the folder of the state first.
    ///
    /// # Errors
    /// When one of them exists and no pipeline made it; nothing is deleted then.
    pub(super) fn begin(&mut self, step: &Step, key: &Key) -> Result<()> {
        self.reload();
        if let Some(reason) = self.refusal(step) {
            return Err(Error::Other(reason));
        }
        for path in step.outputs.iter().filter(|path| step.fresh && exists(path)) {
            self.keep_foreign(path)?;
            delete(path)?;
        }
        let names: Vec<String> = step.outputs.iter().map(|path| self.name(path)).collect();
        self.update(|state| {
            let now = state.file_time();
            state.data.windows.open(&key.digest, now);
            state.data.completed.remove(&key.digest);
            state.data.outputs.extend(names.into_iter().map(|name| (name, key.digest.clone())));
        })
    }

    fn file_time(&self) -> Option<SystemTime> {
        file_time(&self.out.join(FOLDER))
    }

    /// Moves what no step made out of a folder that is going to be deleted.
    fn keep_foreign(&self, path: &Path) -> Result<()> {
        if !path.is_dir() || path.is_symlink() {
            return Ok(());
        }
        let files = self.data.windows.foreign_below(path)?;
        if let Some(first) = files.first() {
            let target = free(&self.file("kept").join(self.name(path)));
            move_files(&files, path, &target)?;
            let (first, target) = (first.display(), target.display());
            note(format!("files that no step made were moved to {target} ({}, the first {first})", files.len()));
        }
        Ok(())
    }

    /// Whether a pipeline made what is at a path, or a folder that it lies in.
    fn is_made(&self, path: &Path) -> bool {
        let owned = |path: &Path| self.data.outputs.contains_key(&self.name(path));
        let Some(output) = path.ancestors().take_while(|p| *p != self.out).find(|path| owned(path)) else {
            return false;
        };
        // Someone may have put another file or folder in its place.
        let known = self.data.created.get(&self.name(output)).copied();
        (known.is_some() && known == created(output)) || !self.data.windows.is_foreign(output)
    }

    /// Records that a step has ended without being completed.
    pub(super) fn fail(&mut self, key: &Key) -> Result<()> {
        self.update(|state| {
            let now = state.file_time();
            state.data.windows.close(&key.digest, now);
        })
    }

    /// Records that a step is complete.
    pub(super) fn complete(&mut self, step: &Step, key: &Key, seconds: f64) -> Result<()> {
        let outputs: Vec<String> = step.outputs.iter().map(|path| self.name(path)).collect();
        let (command, inputs) = (key.command.clone(), key.inputs.clone());
        let made = step.outputs.iter().filter_map(|path| Some((self.name(path), created(path)?)));
        let made: Vec<(String, SystemTime)> = made.collect();
        let record = Record { step: step.name.clone(), command, inputs, outputs, seconds, finished: now() };
        self.update(|state| {
            let now = state.file_time();
            state.data.windows.close(&key.digest, now);
            state.data.created.extend(made);
            state.data.completed.insert(key.digest.clone(), record);
            // What another step wrote over can not be skipped again.
            let owners = &state.data.outputs;
            state.data.completed.retain(|digest, record| {
                record.outputs.is_empty() || record.outputs.iter().any(|name| owners.get(name) == Some(digest))
            });
        })
    }
}

/// Waits until no other process runs this pipeline, and keeps others out as long as the file is open.
pub(super) fn lock_pipeline(out: &Path, pipeline: &Path) -> Result<File> {
    lock_path(out, "pipeline", pipeline, "another process runs this pipeline; waiting for it …")
}

/// Keeps other pipelines from writing the outputs of a step as long as the files are open.
pub(super) fn lock_outputs(out: &Path, step: &Step) -> Result<Vec<File>> {
    let mut outputs: Vec<&PathBuf> = step.outputs.iter().collect();
    // All processes lock in the same order.
    outputs.sort();
    let waiting = |path: &Path| format!("another pipeline writes {}; waiting for it …", path.display());
    outputs.into_iter().map(|path| lock_path(out, "output", path, &waiting(path))).collect()
}

fn lock_path(out: &Path, kind: &str, path: &Path, waiting: &str) -> Result<File> {
    let (name, locks) = (hex(&Sha256::digest(path.display().to_string())), out.join(FOLDER).join("locks"));
    create_dir(&locks)?;
    lock(&locks.join(format!("{kind}-{}", &name[..16])), waiting)
}

/// Why a step has to run.
pub(super) enum Incomplete {
    /// It was never run like this; what was recorded the last time that it ran.
    NeverRun(Option<Record>),
    /// An output is not there.
    Missing(PathBuf),
    /// Another step wrote this output since.
    Overwritten(PathBuf),
}

fn delete(path: &Path) -> Result<()> {
    let is_dir = std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    let deleted = if is_dir { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    deleted.map_err(|source| Error::Io { path: path.to_owned(), action: "deleted", source })
}
