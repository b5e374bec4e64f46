//! The queue of a model: requests wait while the batch before them is computed, and form the next one.

use super::{
    batch::{self, Budget},
    job::{Job, Work},
};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

/// Jobs in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a job; gives it back when the model takes no more.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = self.state();
        if state.closed {
            return Err(job);
        }
        state.jobs.push_back(job);
        drop(state);
        self.ready.notify_one();
        Ok(())
    }

    /// Number of waiting jobs.
    pub(super) fn len(&self) -> usize {
        self.state().jobs.len()
    }

    /// Takes no more jobs; those that wait are still done.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_all();
    }

    /// The next work, once there is some; `None` when the queue is closed and empty. Jobs whose client has gone are
    /// dropped.
    pub(super) fn take(&self, budget: Budget) -> Option<Work> {
        let mut state = self.state();
        loop {
            state.jobs.retain(|job| match job {
                Job::Encode(job) => !job.reply.is_closed(),
                Job::Generate(job) => !job.reply.is_closed(),
                Job::Answer(job) => !job.reply.is_closed(),
                Job::Transcribe(job) => !job.reply.is_closed(),
                _ => true,
            });
            match state.jobs.pop_front() {
                Some(Job::Call(call)) => return Some(Work::Call(call)),
                Some(Job::Unload) => return Some(Work::Unload),
                Some(Job::Reload) => return Some(Work::Reload),
                Some(Job::Encode(first)) => return Some(Work::Encode(batch::complete(first, &mut state.jobs, budget))),
                Some(Job::Generate(first)) => {
                    let take = |job| if let Job::Generate(job) = job { Ok(*job) } else { Err(job) };
                    return Some(Work::Generate(batch::texts(*first, &mut state.jobs, budget, take)));
                }
                Some(Job::Answer(first)) => {
                    let take = |job| if let Job::Answer(job) = job { Ok(*job) } else { Err(job) };
                    return Some(Work::Answer(batch::texts(*first, &mut state.jobs, budget, take)));
                }
                Some(Job::Transcribe(first)) => {
                    let take = |job| if let Job::Transcribe(job) = job { Ok(*job) } else { Err(job) };
                    return Some(Work::Transcribe(batch::texts(*first, &mut state.jobs, budget, take)));
                }
                None if state.closed => return None,
                None => state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}
