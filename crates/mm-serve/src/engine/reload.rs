//! Models whose files have changed are loaded again while the server runs.

use super::{handle::ModelHandle, job::Job, memory::stamp};
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// Looks for changed files every `seconds`, until `stopped`. A model is loaded again once its files have stayed the same
/// for that time, so that it is not read while it is written.
pub(super) fn watch(models: Vec<(Arc<ModelHandle>, PathBuf)>, seconds: u64, stopped: &AtomicBool) {
    let mut watched: Vec<_> = models
        .into_iter()
        .map(|(handle, folder)| {
            let loaded = stamp(&folder);
            (handle, folder, loaded.clone(), loaded)
        })
        .collect();
    while !wait(seconds, stopped) {
        for (handle, folder, loaded, last) in &mut watched {
            let now = stamp(folder);
            // Without files it is being replaced.
            let has_settled = now == *last && !now.is_empty();
            if has_settled && now != *loaded && handle.queue.push(Job::Reload).is_ok() {
                loaded.clone_from(&now);
            }
            *last = now;
        }
    }
}

/// Sleeps; returns whether the server stops.
fn wait(seconds: u64, stopped: &AtomicBool) -> bool {
    const STEP: Duration = Duration::from_millis(100);
    for _ in 0..seconds * 10 {
        if stopped.load(Ordering::Relaxed) {
            return true;
        }
        std::thread::sleep(STEP);
    }
    stopped.load(Ordering::Relaxed)
}
