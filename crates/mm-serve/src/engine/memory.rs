//! Which models are in memory: within a budget of bytes, where the least recently used one goes when another needs its
//! room.

use super::{handle::ModelHandle, job::Job};
use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The models in memory.
pub(super) struct Memory {
    /// Bytes of weights; unlimited when absent.
    budget: Option<u64>,
    resident: Mutex<Vec<Resident>>,
    /// A model was unloaded.
    freed: Condvar,
}

struct Resident {
    handle: Arc<ModelHandle>,
    bytes: u64,
    used: Instant,
    /// It was asked to go, and does once its earlier work is done.
    is_leaving: bool,
}

impl Memory {
    pub(super) fn new(budget: Option<u64>) -> Self {
        Self { budget, resident: Mutex::default(), freed: Condvar::new() }
    }

    fn resident(&self) -> MutexGuard<'_, Vec<Resident>> {
        self.resident.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for a model, and takes it. A model that is larger than the budget is alone.
    ///
    /// A model that waits holds no room, so that models cannot wait for each other.
    pub(super) fn enter(&self, handle: &Arc<ModelHandle>, bytes: u64) {
        let mut resident = self.resident();
        // One whose loading panicked is still counted.
        resident.retain(|model| model.handle.name != handle.name);
        if let Some(budget) = self.budget {
            while !resident.is_empty() && sum(&resident, |_| true) + bytes > budget {
                ask_to_leave(&mut resident, budget.saturating_sub(bytes));
                resident = self.freed.wait(resident).unwrap_or_else(PoisonError::into_inner);
            }
        }
        resident.push(Resident { handle: handle.clone(), bytes, used: Instant::now(), is_leaving: false });
    }

    /// A model is used.
    pub(super) fn touch(&self, name: &str) {
        if let Some(model) = self.resident().iter_mut().find(|model| model.handle.name == name) {
            model.used = Instant::now();
        }
    }

    /// A model was unloaded.
    pub(super) fn leave(&self, name: &str) {
        self.resident().retain(|model| model.handle.name != name);
        self.freed.notify_all();
    }
}

fn sum(resident: &[Resident], counts: impl Fn(&Resident) -> bool) -> u64 {
    resident.iter().filter(|model| counts(model)).map(|model| model.bytes).sum()
}

/// Asks the least recently used models to go, until the others have at most `limit` bytes.
fn ask_to_leave(resident: &mut [Resident], limit: u64) {
    while sum(resident, |model| !model.is_leaving) > limit {
        let Some(oldest) = resident.iter_mut().filter(|model| !model.is_leaving).min_by_key(|model| model.used) else {
            return;
        };
        oldest.is_leaving = true;
        // A closed queue is that of a server that stops: its models go by themselves.
        drop(oldest.handle.queue.push(Job::Unload));
    }
}

/// Extensions of files of weights.
const WEIGHTS: [&str; 5] = ["safetensors", "bin", "pth", "pt", "gguf"];

/// Bytes of the weights in a folder and its subfolders, without those from which training continues.
pub(super) fn weight_bytes(folder: &Path) -> u64 {
    model_files(folder, 0, |path| has_extension(path, &WEIGHTS)).map(|(_, metadata)| metadata.len()).sum()
}

/// Extensions of files of settings and tokenizers.
const SETTINGS: [&str; 5] = ["json", "toml", "txt", "model", "jinja"];

/// The files of weights, settings and tokenizers in a folder, which tell whether a model has changed.
pub(super) fn stamp(folder: &Path) -> Vec<(std::path::PathBuf, u64, Option<std::time::SystemTime>)> {
    let of_model = |path: &Path| has_extension(path, &WEIGHTS) || has_extension(path, &SETTINGS);
    let mut stamps: Vec<_> = model_files(folder, 0, of_model)
        .map(|(path, metadata)| (path, metadata.len(), metadata.modified().ok()))
        .collect();
    stamps.sort();
    stamps
}

/// Deepest subfolder that is looked into: members of an ensemble, weights of a run that fine-tuned a model.
const MAX_DEPTH: usize = 2;

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|extension| known.iter().any(|known| extension == *known))
}

/// Files that are `wanted`, without weights from which training continues.
fn model_files(
    folder: &Path,
    depth: usize,
    wanted: impl Fn(&Path) -> bool + Copy + 'static,
) -> Box<dyn Iterator<Item = (std::path::PathBuf, std::fs::Metadata)>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    Box::new(entries.flat_map(move |entry| -> Box<dyn Iterator<Item = _>> {
        let path = entry.path();
        // Links of the hub's cache lead to the files.
        let Ok(metadata) = std::fs::metadata(&path) else { return Box::new(std::iter::empty()) };
        if metadata.is_dir() && depth < MAX_DEPTH {
            return model_files(&path, depth + 1, wanted);
        }
        let is_last = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("last"));
        Box::new((metadata.is_file() && wanted(&path) && !is_last).then_some((path, metadata)).into_iter())
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> Arc<ModelHandle> {
        Arc::new(ModelHandle::new(name))
    }

    #[test]
    fn the_least_recently_used_model_goes() {
        let memory = Memory::new(Some(10));
        let [a, b, c] = ["a", "b", "c"].map(model);
        memory.enter(&a, 4);
        memory.enter(&b, 4);
        memory.touch("a");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| memory.enter(&c, 5));
            // Only b is asked: without it there is room.
            while b.queue.len() == 0 {
                std::thread::yield_now();
            }
            assert_eq!(a.queue.len(), 0);
            assert!(!waiting.is_finished());
            memory.leave("b");
        });
        assert_eq!(sum(&memory.resident(), |_| true), 9);
    }

    #[test]
    fn a_model_larger_than_the_budget_is_alone() {
        let memory = Memory::new(Some(10));
        let [a, b] = ["a", "b"].map(model);
        memory.enter(&a, 50);
        std::thread::scope(|scope| {
            scope.spawn(|| memory.enter(&b, 1));
            while a.queue.len() == 0 {
                std::thread::yield_now();
            }
            memory.leave("a");
        });
        assert_eq!(memory.resident().len(), 1);
    }

    #[test]
    fn the_files_of_a_run_that_is_continued_are_not_counted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("member-0")).unwrap();
        for (name, length) in [("best.safetensors", 5), ("last.safetensors", 70), ("member-0/best.safetensors", 20)] {
            std::fs::write(folder.path().join(name), vec![0; length]).unwrap();
        }
        std::fs::write(folder.path().join("log.jsonl"), [0; 9]).unwrap();
        assert_eq!(weight_bytes(folder.path()), 25);
        let before = stamp(folder.path());
        std::fs::write(folder.path().join("log.jsonl"), [0; 10]).unwrap();
        assert_eq!(stamp(folder.path()), before);
        for name in ["best.safetensors", "tokenizer.json"] {
            let before = stamp(folder.path());
            std::fs::write(folder.path().join(name), [0; 6]).unwrap();
            assert_ne!(stamp(folder.path()), before);
        }
    }
}
