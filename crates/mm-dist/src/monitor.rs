//! Tells which process is to blame when an operation of all processes fails: each counts its heartbeats and its
//! operations in the store, and after a failure the counters that no longer grow are those of processes that are gone.

use crate::backend::Store;
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
        mpsc::channel,
    },
    thread::JoinHandle,
    time::Duration,
};

/// Time between two heartbeats.
const INTERVAL: Duration = Duration::from_millis(500);
/// How long a process without a heartbeat is watched before it is called gone.
const PATIENCE: Duration = Duration::from_millis(1800);
/// How long the store may take to answer who is to blame. Over a link that is cut its connection waits for many minutes.
const DEADLINE: Duration = Duration::from_millis(4000);
/// The key under which the first process that noticed says who is to blame.
const BLAME: &str = "blame";

fn beats(rank: usize) -> String {
    format!("beats/{rank}")
}

fn operations(rank: usize) -> String {
    format!("operations/{rank}")
}

/// Counts this process's heartbeats in a thread, on a connection of its own.
pub(crate) struct Monitor {
    rank: usize,
    world_size: usize,
    store: Arc<Mutex<Store>>,
    started: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
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
        Ok(Self { rank, world_size, store: Arc::new(Mutex::new(store)), started, stop, thread: Some(thread) })
    }

    /// Counts an operation that this process begins.
    pub(crate) fn count(&self) {
        self.started.fetch_add(1, Ordering::Relaxed);
    }

    /// Which processes are to blame for a failed operation, in words; waits for heartbeats for two seconds.
    pub(crate) fn blame(&self) -> String {
        let (sender, receiver) = channel();
        let (store, rank, world_size) = (self.store.clone(), self.rank, self.world_size);
        // A thread that is left behind ends with the process.
        let asked = std::thread::Builder::new().name("mm-dist-blame".into()).spawn(move || {
            let store = store.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = sender.send(try_blame(&store, rank, world_size));
        });
        match asked.ok().and_then(|_| receiver.recv_timeout(DEADLINE).ok()) {
            Some(Ok(blame)) => blame,
            Some(Err(_)) => "rank 0, which keeps the store, is gone".to_owned(),
            None => "rank 0, which keeps the store, cannot be reached".to_owned(),
        }
    }
}

fn try_blame(store: &Store, own: usize, world_size: usize) -> Result<String, String> {
    let counters = |key: fn(usize) -> String| {
        (0..world_size).map(|rank| store.add(&key(rank), 0)).collect::<Result<Vec<i64>, String>>()
    };
    let before = counters(beats)?;
    std::thread::sleep(PATIENCE);
    if store.add("blamed", 0)? > 0 {
        return Ok(String::from_utf8_lossy(&store.get(BLAME)?).into_owned());
    }
    let (after, done) = (counters(beats)?, counters(operations)?);
    let gone: Vec<usize> = (0..world_size).filter(|r| *r != own && before[*r] == after[*r]).collect();
    let furthest = done.iter().copied().max().unwrap_or(0);
    let behind: Vec<usize> = (0..world_size).filter(|r| *r != own && done[*r] < furthest).collect();
    let blame = match (gone.as_slice(), behind.as_slice()) {
        ([_, ..], _) => format!("{} ended or does not run", ranks(&gone)),
        ([], [_, ..]) => format!("{} did not come to it within the timeout", ranks(&behind)),
        ([], []) => "no rank is known to be gone".to_owned(),
    };
    store.set(BLAME, blame.as_bytes())?;
    store.add("blamed", 1)?;
    Ok(blame)
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
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
