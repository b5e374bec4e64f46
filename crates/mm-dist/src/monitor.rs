//! Tells why an operation of all processes failed. A process that ends with an error reports it in the store. Of others,
//! each counts its heartbeats and its operations there, and after a failure the counters that no longer grow are those
//! of processes that are gone.

use crate::backend::Store;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
        mpsc::channel,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// Time between two heartbeats.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a process without a heartbeat is watched before it is called gone.
const PATIENCE: Duration = Duration::from_millis(1800);
/// How long the store may take to answer. Over a link that is cut its connection waits for many minutes.
const DEADLINE: Duration = Duration::from_millis(3000);
/// How long rank 0 keeps the store for others that have not read why their operation failed.
const LINGER: Duration = Duration::from_millis(2000);
/// How often a value of the store is asked for again.
const POLL: Duration = Duration::from_millis(20);
/// The key of what the first process that noticed says of the failure.
const BLAME: &str = "blame";
/// The key of the first report of a process that ends with an error.
const REPORT: &str = "report";
/// The counter of processes that know why an operation failed.
const INFORMED: &str = "informed";

fn beats(rank: usize) -> String {
    format!("beats/{rank}")
}

fn operations(rank: usize) -> String {
    format!("operations/{rank}")
}

/// Why an operation failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Blame {
    /// A process reported an error, and ended.
    Reported { rank: usize, reason: String },
    /// Which processes are to blame, in words, and how many of them do not run.
    Observed { peers: String, gone: usize },
}

/// A value that the process that comes first writes under a key, for all.
fn set_first<T: Serialize>(store: &Store, key: &str, value: &T) -> Result<(), String> {
    if store.add(&format!("{key}/count"), 1)? > 1 {
        return Ok(());
    }
    store.set(key, &serde_json::to_vec(value).map_err(|e| e.to_string())?)
}

/// The value of [`set_first`]; `None` where no process has written one.
fn get_first<T: DeserializeOwned>(store: &Store, key: &str) -> Result<Option<T>, String> {
    if store.add(&format!("{key}/count"), 0)? == 0 {
        return Ok(None);
    }
    serde_json::from_slice(&store.get(key)?).map(Some).map_err(|e| e.to_string())
}

/// Counts this process's heartbeats in a thread, on a connection of its own.
pub(crate) struct Monitor {
    rank: usize,
    world_size: usize,
    store: Arc<Mutex<Store>>,
    started: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// After a failure, how many other processes want to read why.
    readers: Cell<Option<usize>>,
    /// Whether the store has not answered.
    is_lost: Cell<bool>,
}

impl Monitor {
    pub(crate) fn start(rank: usize, world_size: usize, store: Store, own: Store) -> std::io::Result<Self> {
        let (started, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
        let thread = std::thread::Builder::new().name("mm-dist".into()).spawn({
            let (started, stop) = (started.clone(), stop.clone());
            move || {
                let mut reported = 0;
                while !stop.load(Ordering::Relaxed) {
                    let now = started.load(Ordering::Relaxed);
                    let beat = own.add(&beats(rank), 1).and_then(|_| own.add(&operations(rank), now - reported));
                    if beat.is_err() {
                        return; // The store is gone, and with it who would read this.
                    }
                    reported = now;
                    std::thread::park_timeout(INTERVAL);
                }
            }
        })?;
        Ok(Self {
            rank,
            world_size,
            store: Arc::new(Mutex::new(store)),
            started,
            stop,
            thread: Some(thread),
            readers: Cell::new(None),
            is_lost: Cell::new(false),
        })
    }

    /// Counts an operation that this process begins.
    pub(crate) fn count(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Says why this process ends, to the others, whose next operation fails.
    pub(crate) fn report(&self, reason: &str) {
        let report = Blame::Reported { rank: self.rank, reason: reason.to_owned() };
        if self.readers.get().is_none() && self.ask(move |store| set_first(store, REPORT, &report)).is_ok() {
            self.inform(self.world_size - 1);
        }
    }

    /// Why an operation failed; waits for heartbeats for two seconds unless a process reported an error.
    pub(crate) fn blame(&self) -> Blame {
        let (rank, world_size) = (self.rank, self.world_size);
        let blame = self.ask(move |store| try_blame(store, rank, world_size));
        let blame = blame.unwrap_or_else(|peers| Blame::Observed { peers, gone: world_size });
        let gone = if let Blame::Observed { gone, .. } = &blame { *gone } else { 0 };
        self.inform((world_size - 1).saturating_sub(gone));
        blame
    }

    /// What the store says; else, in words, why it says nothing.
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Store) -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        let (sender, receiver) = channel();
        let store = self.store.clone();
        // A thread that is left behind ends with the process.
        let asked = std::thread::Builder::new().name("mm-dist-blame".into()).spawn(move || {
            let store = store.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = sender.send(question(&store));
        });
        let Some(answer) = asked.ok().and_then(|_| receiver.recv_timeout(DEADLINE).ok()) else {
            self.is_lost.set(true);
            return Err("rank 0, which keeps the store, cannot be reached".to_owned());
        };
        answer.map_err(|_| "rank 0, which keeps the store, is gone".to_owned())
    }

    /// Counts this process among those that know why an operation failed; so many others are to know it as well.
    fn inform(&self, readers: usize) {
        if self.readers.replace(Some(readers)).is_none() && self.rank > 0 && !self.is_lost.get() {
            let _ = self.ask(|store| store.add(INFORMED, 1));
        }
    }

    /// Keeps the store of rank 0 until the others have read why an operation failed.
    fn wait_for_readers(&self) {
        let Some(readers) = self.readers.get().filter(|_| self.rank == 0) else { return };
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        while begun.elapsed() < LINGER && store.add(INFORMED, 0).is_ok_and(|count| count < readers as i64) {
            std::thread::sleep(POLL);
        }
    }
}

fn try_blame(store: &Store, own: usize, world_size: usize) -> Result<Blame, String> {
    let counters = |key: fn(usize) -> String| {
        (0..world_size).map(|rank| store.add(&key(rank), 0)).collect::<Result<Vec<i64>, String>>()
    };
    let (begun, before) = (Instant::now(), counters(beats)?);
    loop {
        if let Some(report) = get_first(store, REPORT)? {
            return Ok(report);
        }
        if begun.elapsed() >= PATIENCE {
            break;
        }
        std::thread::sleep(POLL);
    }
    if let Some(blame) = get_first(store, BLAME)? {
        return Ok(blame);
    }
    let (after, done) = (counters(beats)?, counters(operations)?);
    let gone: Vec<usize> = (0..world_size).filter(|r| *r != own && before[*r] == after[*r]).collect();
    let furthest = done.iter().copied().max().unwrap_or(0);
    let behind: Vec<usize> = (0..world_size).filter(|r| *r != own && done[*r] < furthest).collect();
    let peers = match (gone.as_slice(), behind.as_slice()) {
        ([_, ..], _) => format!("{} ended or does not run", ranks(&gone)),
        ([], [_, ..]) => format!("{} did not come to it within the timeout", ranks(&behind)),
        ([], []) => "no rank is known to be gone".to_owned(),
    };
    let blame = Blame::Observed { peers, gone: gone.len() };
    set_first(store, BLAME, &blame)?;
    Ok(blame)
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if !self.is_lost.get() {
            self.wait_for_readers();
        }
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take().filter(|_| !self.is_lost.get()) else { return };
        thread.thread().unpark();
        // It may wait for a store that cannot be reached.
        for _ in 0..20 {
            if thread.is_finished() {
                let _ = thread.join();
                return;
            }
            std::thread::sleep(INTERVAL / 10);
        }
    }
}

fn ranks(ranks: &[usize]) -> String {
    let list = ranks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if ranks.len() == 1 { format!("rank {list}") } else { format!("ranks {list}") }
}
