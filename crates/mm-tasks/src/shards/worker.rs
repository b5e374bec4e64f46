//! The loop of one worker.

use super::{Lease, ShardFolder, lease::Leases};
use crate::Error;
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How often a worker that waits checks whether it is stopped.
const STOP_INTERVAL: Duration = Duration::from_millis(100);

/// What came of a shard.
#[derive(Debug)]
pub enum ShardOutcome<T> {
    /// Its outputs are written; this is recorded.
    Done(T),
    /// It cannot be processed, and why. The others are; another run tries it again.
    Failed(String),
    /// The worker was stopped in the middle.
    Stopped,
}

/// A shard that a worker has taken.
pub struct Shard<'a> {
    /// Its name.
    pub name: &'a str,
    /// The file.
    pub file: &'a Path,
    /// By which its outputs are written.
    pub lease: &'a Lease,
    /// Ends the work early.
    pub stop: &'a AtomicBool,
}

/// What a worker does with a shard.
pub trait ShardWork {
    /// What is recorded of a shard, in addition to its file and size.
    type Record: Serialize;
    /// The error that ends the worker.
    type Error: From<Error>;

    /// Processes a shard and writes its outputs by [`Lease::write`].
    ///
    /// # Errors
    /// What would stop every other shard as well.
    fn process(&mut self, shard: &Shard<'_>) -> Result<ShardOutcome<Self::Record>, Self::Error>;
}

/// The result of a worker.
#[derive(Debug, Default)]
pub struct WorkerSummary {
    /// Number of shards.
    pub shards: usize,
    /// Number that this worker processed.
    pub processed: usize,
    /// Shards that could not be processed, and why.
    pub failed: Vec<(PathBuf, String)>,
    /// Whether it was stopped before the end.
    pub stopped: bool,
}

/// What became of a shard that a worker wanted.
enum Taken {
    Done,
    Processed,
    ByAnother,
    Failed(String),
    Stopped,
}

/// Processes shards ([`super::name_shards`]) into a folder that is prepared ([`ShardFolder::prepare`]), until all are
/// done, by this worker or by others. It begins with the shard `first`, so that workers do not all try the same;
/// `on_progress(done, shards)` is called after each.
///
/// # Errors
/// When the folder cannot be written, or the work ends with an error. A shard that fails is in the summary.
pub fn run_worker<W: ShardWork>(
    folder: &ShardFolder,
    shards: &[(String, &PathBuf)],
    first: usize,
    work: &mut W,
    stop: &AtomicBool,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<WorkerSummary, W::Error> {
    let leases = Leases::open(folder)?;
    let mut summary = WorkerSummary { shards: shards.len(), ..WorkerSummary::default() };
    let mut open: Vec<usize> = (0..shards.len()).collect();
    open.rotate_left(first % shards.len().max(1));
    // What was done before; the size of a file on a server is not asked for again.
    let recorded = folder.recorded()?;
    let is_done = |name: &str, file: &Path| {
        Ok::<_, Error>(recorded.contains(name) && (mm_data::is_remote(file) || folder.is_done(name, file)?))
    };
    while !open.is_empty() && !summary.stopped {
        let mut waiting = Vec::new();
        for (number, index) in open.iter().enumerate() {
            let (name, file) = &shards[*index];
            let taken = if is_done(name, file)? { Taken::Done } else { take(folder, &leases, name, file, work, stop)? };
            match taken {
                Taken::Done => {}
                Taken::Processed => summary.processed += 1,
                Taken::ByAnother => waiting.push(*index),
                Taken::Failed(reason) => summary.failed.push(((*file).clone(), reason)),
                Taken::Stopped => {
                    summary.stopped = true;
                    break;
                }
            }
            let left = open.len() - number - 1 + waiting.len();
            on_progress(shards.len() - left, shards.len());
        }
        open = waiting;
        if !open.is_empty() && !summary.stopped {
            wait(folder.files().polling_interval(), stop);
            summary.stopped = stop.load(Ordering::Relaxed);
        }
    }
    if !summary.stopped {
        leases.sweep()?;
        folder.remove_done_failures()?;
    }
    Ok(summary)
}

/// Waits, or until the worker is stopped.
fn wait(time: Duration, stop: &AtomicBool) {
    let end = Instant::now() + time;
    while Instant::now() < end && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(STOP_INTERVAL.min(end.saturating_duration_since(Instant::now())));
    }
}

/// Processes a shard unless another worker has leased or done it.
fn take<W: ShardWork>(
    folder: &ShardFolder,
    leases: &Leases,
    name: &str,
    file: &Path,
    work: &mut W,
    stop: &AtomicBool,
) -> Result<Taken, W::Error> {
    if stop.load(Ordering::Relaxed) {
        return Ok(Taken::Stopped);
    }
    let Some(lease) = leases.take(name)? else { return Ok(Taken::ByAnother) };
    // It may have been done since the listing.
    if folder.is_done(name, file)? {
        return Ok(Taken::Done);
    }
    let finished = match work.process(&Shard { name, file, lease: &lease, stop }) {
        Ok(ShardOutcome::Done(record)) => {
            folder.finish(name, file, &lease, record).map(|()| Taken::Processed).map_err(Into::into)
        }
        Ok(ShardOutcome::Failed(reason)) => {
            folder.add_failure(name, file, &lease, &reason).map(|()| Taken::Failed(reason)).map_err(Into::into)
        }
        Ok(ShardOutcome::Stopped) => Ok(Taken::Stopped),
        Err(error) => Err(error),
    };
    mm_data::release_copy(file);
    finished
}
