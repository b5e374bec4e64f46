//! The group of the current thread, and groups of threads for tests.

use crate::{Environment, Error, Group, Result};
use std::{cell::RefCell, net::TcpListener, rc::Rc, time::Duration};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Group>>> = const { RefCell::new(None) };
}

/// The group that [`with_group`] set for this thread; `None` where one process computes alone.
pub fn current() -> Option<Rc<Group>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs a function with a group as [`current`]: trainers and losses inside of it work together with the other ranks.
pub fn with_group<T>(group: &Rc<Group>, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<Rc<Group>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.0.take();
            CURRENT.with_borrow_mut(|current| *current = before);
        }
    }
    let _restore = Restore(CURRENT.with_borrow_mut(|current| current.replace(group.clone())));
    run()
}

/// Runs a function in `world_size` threads that form a group on this host, for tests and examples; returns what each
/// rank returned.
///
/// # Errors
/// The error of the lowest rank that failed.
///
/// # Panics
/// When the function panics.
pub fn spawn_local<T: Send>(world_size: usize, run: impl Fn(&Rc<Group>) -> Result<T> + Sync) -> Result<Vec<T>> {
    let io = |error: std::io::Error| Error::Environment {
        name: "MASTER_PORT",
        found: error.to_string(),
        expected: "a free port on 127.0.0.1".into(),
    };
    let master_port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map_err(io)?.port();
    let join = |rank: usize| {
        let environment = Environment {
            rank,
            world_size,
            local_rank: rank,
            local_world_size: Some(world_size),
            master_address: "127.0.0.1".into(),
            master_port,
            agent_store: false,
            attempt: 0,
            timeout: Duration::from_secs(60),
        };
        let group = Rc::new(Group::join(&environment)?);
        with_group(&group, || run(&group))
    };
    std::thread::scope(|scope| {
        let join = &join;
        let threads: Vec<_> = (0..world_size).map(|rank| scope.spawn(move || join(rank))).collect();
        let results: Vec<Result<T>> =
            threads.into_iter().map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
        results.into_iter().collect()
    })
}
