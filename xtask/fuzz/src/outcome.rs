//! Running a target on one input.

use crate::Target;
use std::{
    panic::{self, AssertUnwindSafe, PanicHookInfo},
    sync::{Mutex, Once, PoisonError},
};

/// The first panic in mm's own code since the last run, caught or not.
static OWN_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// Whether a source file belongs to this workspace. Panics in a dependency may be caught and become a named error; mm's
/// own code has none.
fn is_own(file: &str) -> bool {
    let path = file.replace('\\', "/");
    ["crates/mm-", "xtask/"].iter().any(|folder| path.starts_with(folder) || path.contains(&format!("/{folder}")))
        && !path.contains("/.cargo/")
}

fn note_panic(info: &PanicHookInfo<'_>) {
    let file = info.location().map_or("", |l| l.file());
    if is_own(file) {
        let text = format!("{info}\n{}", std::backtrace::Backtrace::force_capture());
        OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
    }
}

/// Runs a target on an input. It replaces the process's panic hook.
///
/// # Errors
/// If the target panics, or mm's own code panics and catches it, with the message and the place.
pub fn run(target: Target, input: &[u8]) -> Result<(), String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| panic::set_hook(Box::new(note_panic)));
    OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    let result = panic::catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let own = OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (own, result) {
        (Some(text), _) => Err(text),
        (None, Ok(())) => Ok(()),
        (None, Err(payload)) => {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
            // In builds with checks for overflow; a release wraps.
            let wraps = text.starts_with("attempt to ") && text.ends_with("overflow");
            if wraps { Ok(()) } else { Err(format!("a panic in a library was not caught: {text}")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_panics_are_findings_even_when_they_are_caught() {
        let caught = Target { name: "caught", read: |_| drop(panic::catch_unwind(|| panic!("own code"))) };
        assert!(run(caught, b"").unwrap_err().contains("own code"));
        assert!(run(Target { name: "good", read: |_| {} }, b"").is_ok());
        assert!(is_own("crates/mm-data/src/npy.rs") && is_own("/work/mm/xtask/src/archive.rs"));
        assert!(
            !is_own("/root/.cargo/registry/src/x/zip-2.0/src/read.rs") && !is_own("/rustc/abc/library/std/src/a.rs")
        );
    }
}
