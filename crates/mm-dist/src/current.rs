//! The group of the current thread.

use crate::{Group, ReduceOp, Result};
use mm_core::{
    Tensor,
    distributed::{ProcessGroup, with_process_group},
};
use std::{cell::RefCell, rc::Rc};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Group>>> = const { RefCell::new(None) };
}

/// The group that [`with_group`] set for this thread; `None` where one process computes alone.
pub fn current() -> Option<Rc<Group>> {
    CURRENT.with_borrow(Clone::clone)
}

/// Runs a function with a group as [`current`], and as [`mm_core::distributed::process_group`]: trainers, layers and
/// losses inside of it work together with the other ranks.
pub fn with_group<T>(group: &Rc<Group>, run: impl FnOnce() -> T) -> T {
    struct Restore(Option<Rc<Group>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.0.take();
            CURRENT.with_borrow_mut(|current| *current = before);
        }
    }
    let _restore = Restore(CURRENT.with_borrow_mut(|current| current.replace(group.clone())));
    with_process_group(Some(Rc::new(Shared(group.clone()))), run)
}

/// A group as mm-core sees it.
struct Shared(Rc<Group>);

/// mm-core has no variant for errors of the crates above it.
fn other<T>(result: Result<T>) -> mm_core::Result<T> {
    result.map_err(|error| mm_core::Error::Other(Box::new(error)))
}

impl ProcessGroup for Shared {
    fn rank(&self) -> usize {
        self.0.rank()
    }

    fn world_size(&self) -> usize {
        self.0.world_size()
    }

    fn all_reduce(&self, tensor: &Tensor) -> mm_core::Result<Tensor> {
        other(self.0.all_reduce(tensor, ReduceOp::Sum))
    }

    fn batch_norm(&self, input: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> mm_core::Result<[Tensor; 3]> {
        other(self.0.batch_norm(input, weight, bias, eps))
    }

    fn broadcast(&self, tensor: &Tensor) -> mm_core::Result<Tensor> {
        other(self.0.broadcast(tensor, 0))
    }

    fn gather_rows(&self, rows: &Tensor) -> mm_core::Result<(Tensor, Vec<usize>)> {
        let gathered = other(self.0.gather_rows(rows))?;
        Ok((gathered.values, gathered.counts))
    }

    fn gather_text(&self, text: &str) -> mm_core::Result<Vec<String>> {
        let texts = other(self.0.gather_bytes(text.as_bytes()))?;
        Ok(texts.into_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect())
    }

    fn barrier(&self) -> mm_core::Result<()> {
        other(self.0.barrier())
    }
}
