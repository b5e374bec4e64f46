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

/// The limit that a sample was truncated to since the last call, on this thread: call it before and after
/// [`Processor::process`](mm_core::Processor::process).
pub fn take_truncated() -> Option<String> {
    LIMIT.take()
}
