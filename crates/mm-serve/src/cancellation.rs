//! Work that ends early where nobody waits for its result.

use crate::error::{ApiError, Kind};

/// Whether the client of a request has disconnected, as work in the threads that decode asks between its steps.
#[derive(Clone, Copy)]
pub(crate) struct Cancellation<'a>(&'a (dyn Fn() -> bool + Sync));

impl<'a> Cancellation<'a> {
    /// That of work which is cancelled once this returns true.
    pub(crate) fn new(is_cancelled: &'a (dyn Fn() -> bool + Sync)) -> Self {
        Self(is_cancelled)
    }

    /// Ends cancelled work.
    ///
    /// # Errors
    /// When the client has disconnected; nobody receives the error.
    pub(crate) fn check(self) -> Result<(), ApiError> {
        if (self.0)() { Err(ApiError::new(Kind::Timeout, "the client has disconnected")) } else { Ok(()) }
    }
}
