//! Ranks in threads, for tests and examples, and the rule that keeps them from racing.
//!
//! libtorch notes each operation in a map of all groups of the process, and adds a group to it at the group's first
//! operation without a lock. So the groups of a process belong to one thread ([`ThreadLock`]), except those of
//! [`spawn_local`], which all make their first operation under a lock before one of them makes a second.

use crate::{Environment, Error, Group, Result, with_group};
use std::{
    net::TcpListener,
    rc::Rc,
    sync::{Barrier, Mutex, PoisonError},
    thread::ThreadId,
    time::Duration,
};

/// The thread that has groups, and how many.
static OWNER: Mutex<Option<(ThreadId, usize)>> = Mutex::new(None);
/// One [`spawn_local`] at a time.
static SPAWN: Mutex<()> = Mutex::new(());
/// The time that ranks in threads wait for each other.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The right of a thread to have groups; the other threads have none until it is dropped.
pub(crate) struct ThreadLock(());

impl ThreadLock {
    pub(crate) fn acquire() -> Result<Self> {
        let own = std::thread::current().id();
        let mut owner = OWNER.lock().unwrap_or_else(PoisonError::into_inner);
        match owner.as_mut() {
            Some((thread, _)) if *thread != own => return Err(Error::Thread),
            Some((_, count)) => *count += 1,
            None => *owner = Some((own, 1)),
        }
        Ok(Self(()))
    }
}

impl Drop for ThreadLock {
    fn drop(&mut self) {
        let mut owner = OWNER.lock().unwrap_or_else(PoisonError::into_inner);
        *owner = owner.take().and_then(|(thread, count)| (count > 1).then_some((thread, count - 1)));
    }
}

/// Runs a function in `world_size` threads that form a group on this host, for tests and examples; returns what each
/// rank returned.
///
/// # Errors
/// The error of the lowest rank that failed; [`Error::Thread`].
///
/// # Panics
/// When the function panics.
pub fn spawn_local<T: Send>(world_size: usize, run: impl Fn(&Rc<Group>) -> Result<T> + Sync) -> Result<Vec<T>> {
    spawn_local_with(world_size, TIMEOUT, run)?.into_iter().collect()
}

/// As [`spawn_local`] with another timeout, and with the result or the error of each rank.
///
/// # Errors
/// [`Error::Thread`]; when there is no free port.
///
/// # Panics
/// When the function panics.
pub fn spawn_local_with<T: Send>(
    world_size: usize,
    timeout: Duration,
    run: impl Fn(&Rc<Group>) -> Result<T> + Sync,
) -> Result<Vec<Result<T>>> {
    let _one_at_a_time = SPAWN.lock().unwrap_or_else(PoisonError::into_inner);
    let _lock = ThreadLock::acquire()?;
    let io = |error: std::io::Error| Error::Environment {
        name: "MASTER_PORT",
        found: error.to_string(),
        expected: "a free port on 127.0.0.1".into(),
    };
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(io)?.port();
    let joined = Barrier::new(world_size);
    let join = |rank: usize| {
        let environment = Environment { timeout, ..Environment::local(rank, world_size, port) };
        let group = Group::connect(&environment, None).and_then(|group| group.warm_up().map(|()| Rc::new(group)));
        joined.wait();
        let group = group?;
        with_group(&group, || run(&group))
    };
    Ok(std::thread::scope(|scope| {
        let join = &join;
        let threads: Vec<_> = (0..world_size).map(|rank| scope.spawn(move || join(rank))).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    }))
}
