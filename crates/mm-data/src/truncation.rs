//! Which samples a processor truncated, for caches: a cached sample was truncated when it was computed.

use std::cell::Cell;

thread_local! {
    static LIMIT: Cell<Option<String>> = const { Cell::new(None) };
}

/// Notes that the sample that this thread is processing was truncated to `limit` ("30 seconds").
/// [`Processor::truncated`](mm_core::Processor::truncated) counts those that a processor computes; a
/// [`CachedProcessor`](crate::CachedProcessor) also counts those that it reads.
pub fn note_truncated(limit: String) {
    LIMIT.set(Some(limit));
}

/// What was noted since the last call, on this thread.
pub(crate) fn take_truncated() -> Option<String> {
    LIMIT.take()
}
