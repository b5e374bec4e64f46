//! Functions of the loaded libraries, looked up by name at run time.

use std::ffi::{CStr, c_void};

/// The address of a function in the libraries that are loaded.
#[cfg(unix)]
pub(crate) fn find(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a lookup by name; nothing is called.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

#[cfg(not(unix))]
pub(crate) fn find(_: &CStr) -> Option<*mut c_void> {
    None
}
