//! The group of the current thread.

use crate::Group;
use std::{cell::RefCell, rc::Rc};

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
