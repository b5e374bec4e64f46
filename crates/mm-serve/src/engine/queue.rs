//! The queue of a model: requests wait while the batch before them is computed, and form the next one.

use super::{
    batch::{self, Budget},
    job::{Job, Work},
};
use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// Fewer waiting jobs than this are not searched for those of disconnected clients when one is added.
const MIN_CHECKED: usize = 64;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// How many jobs were left when those of disconnected clients were dropped last.
    checked: usize,
    closed: bool,
}

impl State {
    /// Drops the jobs whose client disconnected.
    fn drop_closed(&mut self) {
        self.jobs.retain(|job| !job.is_closed());
        self.checked = self.jobs.len();
    }
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

    /// Adds a job; gives it back when the model takes no more. Jobs of disconnected clients hold samples, so that they are
    /// dropped here too, while a long batch is computed: whenever the queue has doubled.
    pub(super) fn push(&self, job: Job) -> Result<(), Job> {
        let mut state = self.state();
        if state.closed {
            return Err(job);
        }
        if state.jobs.len() >= 2 * state.checked.max(MIN_CHECKED / 2) {
            state.drop_closed();
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

    /// The next work, once there is some; `None` when the queue is closed and empty. Jobs whose client disconnected are
    /// dropped.
    pub(super) fn take(&self, budget: Budget) -> Option<Work> {
        let mut state = self.state();
        loop {
            state.drop_closed();
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            batch::Cost,
            job::{EncodeJob, Output},
        },
        *,
    };
    use mm_core::Modality;
    use tokio::sync::oneshot;

    #[test]
    fn jobs_of_disconnected_clients_are_dropped_while_the_model_computes() {
        let queue = Queue::default();
        let push = |reply| {
            let job = EncodeJob {
                modality: Modality::TEXT,
                output: Output::Features,
                samples: Vec::new(),
                generation: 0,
                cost: Cost::default(),
                reply,
            };
            assert!(queue.push(Job::Encode(job)).is_ok());
        };
        let mut open = Vec::new();
        for number in 0..1000 {
            let (reply, answer) = oneshot::channel();
            push(reply);
            if number % 100 == 0 {
                open.push(answer);
            }
        }
        // Ten clients wait, and up to as many others as are not checked.
        assert!((10..=MIN_CHECKED).contains(&queue.len()), "{}", queue.len());
    }
}
