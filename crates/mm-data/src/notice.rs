//! Warnings that are logged once.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// Logs a warning, the first time that it occurs in this process: a table is read several times in one command.
pub(crate) fn once(message: String) {
    static LOGGED: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.get_or_insert_default().insert(message.clone()) {
        tracing::warn!("{message}");
    }
}
