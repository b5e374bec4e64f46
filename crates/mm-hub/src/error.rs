//! The error type of this crate.

use std::{
    error::Error as StdError,
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

/// The source of an error of another library.
type Source = Box<dyn StdError + Send + Sync>;

/// What can go wrong while something is fetched, set up or run. What caused an error is its
/// [`source`](StdError::source); [`describe`] prints both.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What was being done when an error happened.
    #[error("{what}")]
    Context {
        /// What failed, and what to do about it.
        what: String,
        /// Why it failed.
        source: Source,
    },
    /// A file or folder cannot be read or written.
    #[error("{} cannot be {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// `read`, `written`, `created` …
        action: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// A server answered with an error status.
    #[error("{url}: the server answered {status}")]
    Status {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Seconds to wait, from the header `Retry-After`.
        retry_after: Option<u64>,
    },
    /// A connection broke, or nothing came for a time.
    #[error("{url}: {reason}")]
    Connection {
        /// The address.
        url: String,
        /// How far it came.
        reason: String,
    },
    /// A file does not have the checksum that its registry states.
    #[error("{file}: its {algorithm} is {found}, expected {expected}; {remedy}")]
    Checksum {
        /// The address or path.
        file: String,
        /// `sha256`, `sha512` or `git`.
        algorithm: &'static str,
        /// The checksum of what is there, in hexadecimal.
        found: String,
        /// The checksum that is stated.
        expected: String,
        /// What was done with the file, and what to do.
        remedy: &'static str,
    },
    /// A server sends another number of bytes than the registry states.
    #[error("{url}: it has {found} bytes, expected {expected}; check the address and the stated size")]
    Size {
        /// The address.
        url: String,
        /// How many bytes it has, or at least has.
        found: u64,
        /// How many are stated.
        expected: u64,
    },
    /// An archive cannot be unpacked.
    #[error("{}: {reason}", file.display())]
    Archive {
        /// The archive.
        file: PathBuf,
        /// What was found in it.
        reason: String,
    },
    /// A name that no registry has.
    #[error("`{name}` is not in the registry; did you mean `{nearest}`? ({hint})")]
    Unknown {
        /// The name.
        name: String,
        /// The known name that is most like it.
        nearest: String,
        /// How to list the names.
        hint: String,
    },
    /// Something would have to be downloaded, and downloads are forbidden.
    #[error(
        "{what} is not in the cache and MM_OFFLINE=1 forbids downloads; unset it, or copy the cache folder of a machine that \
         has it"
    )]
    Offline {
        /// What is missing.
        what: String,
    },
    /// A project cannot be set up; nothing in it was changed.
    #[error("{}: {reason}", path.display())]
    Project {
        /// The file or folder.
        path: PathBuf,
        /// What was found, what was expected, and what to do.
        reason: String,
    },
    /// A pipeline file is wrong.
    #[error("{}: {reason}", file.display())]
    Pipeline {
        /// The file.
        file: PathBuf,
        /// What was found, what was expected, and what to do.
        reason: String,
    },
    /// A step of a pipeline failed.
    #[error(
        "step `{step}` failed; {} complete. Run again to continue, or with --from to repeat one",
        if *completed == 1 { "1 other step is".to_owned() } else { format!("{completed} other steps are") }
    )]
    Step {
        /// The name of the step.
        step: String,
        /// How many steps are complete.
        completed: usize,
        /// Why it failed.
        source: Box<Error>,
    },
    /// A pipeline was stopped by Ctrl-C.
    #[error("stopped before step `{step}` was complete; run again to continue")]
    Interrupted {
        /// The name of the step.
        step: String,
    },
    /// Anything else: what was found, what was expected, and what to do.
    #[error("{0}")]
    Other(String),
}

/// The result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error and everything that caused it, in one line.
pub fn describe(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// The HTTP status, if the error is one of a server.
pub fn status_of(error: &Error) -> Option<u16> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(Error::Status { status, .. }) = error.downcast_ref() {
            return Some(*status);
        }
        next = error.source();
    }
    None
}

/// Returns early with [`Error::Other`].
macro_rules! bail {
    ($($text:tt)*) => {
        return Err($crate::error::Error::Other(format!($($text)*)))
    };
}
pub(crate) use bail;

/// Adds what was being done to an error, or makes one where there is no value.
pub(crate) trait Context<T> {
    fn context(self, what: impl Display) -> Result<T>;

    fn with_context<S: Display>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Source>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Display) -> Result<T> {
        self.with_context(|| what)
    }

    fn with_context<S: Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|source| Error::Context { what: what().to_string(), source: source.into() })
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl Display) -> Result<T> {
        self.with_context(|| what)
    }

    fn with_context<S: Display>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.ok_or_else(|| Error::Other(what().to_string()))
    }
}

/// Names the file or folder that an error of the system is about.
pub(crate) trait At<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, path: &Path, action: &'static str) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), action, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_printed_in_order_and_the_status_is_found_among_them() {
        let status = Error::Status { url: "http://a/b".into(), status: 404, retry_after: None };
        let error = Err::<(), _>(status).context("weights").context("step").unwrap_err();
        assert_eq!(describe(&error), "step: weights: http://a/b: the server answered 404");
        assert_eq!(status_of(&error), Some(404));
        let missing = None::<u8>.context("no value").unwrap_err();
        assert_eq!((describe(&missing), status_of(&missing)), ("no value".into(), None));
        let io = std::fs::read("/does/not/exist").at(Path::new("/does/not/exist"), "read").unwrap_err();
        assert!(describe(&io).starts_with("/does/not/exist cannot be read: "), "{io}");
    }
}
