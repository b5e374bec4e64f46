//! The crate's error type: each message says what was found, what was expected and what to do.

use crate::filter::FilterError;
use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of mm-index.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, folder or server cannot be read, written, or is no store.
    #[error("{path}: {reason}")]
    File {
        /// The file or folder, or the address of the server without its password.
        path: PathBuf,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// Stored data are not what was written.
    #[error("{path}: found damaged data ({what}); restore a copy of the store, or build it again")]
    Damaged {
        /// The file, or the address of the server.
        path: PathBuf,
        /// The part that is damaged.
        what: String,
    },
    /// The store has another format than this program reads.
    #[error(
        "{path}: found a store of version {found}, this program reads version {expected}; use the mm that wrote it, or build it again"
    )]
    Version {
        /// The store.
        path: PathBuf,
        /// The version of the store.
        found: i64,
        /// The version that is read.
        expected: i64,
    },
    /// A vector, row, query or setting that the store cannot take.
    #[error("{what}: found {found}, expected {expected}")]
    Invalid {
        /// What is wrong, with the row it belongs to.
        what: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A name that the store does not have.
    #[error("unknown {what} `{name}`{hint}")]
    Unknown {
        /// The kind of thing that was looked up.
        what: &'static str,
        /// The unknown name.
        name: String,
        /// The nearest known name, or all of them.
        hint: String,
    },
    /// A filter that cannot be parsed.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The vectors of the store are of another model.
    #[error(
        "vector `{vector}` of the store: found the model {found}, expected {expected}, which made its vectors; give that model, with the --dtype and --transparency of then, or build another store"
    )]
    Model {
        /// The named vector.
        vector: String,
        /// The model that was given.
        found: String,
        /// The model of the store.
        expected: String,
    },
    /// Another process holds the store for longer than is waited for.
    #[error("{path}: is being {action} by another process, waited {seconds} s; try again when it is done")]
    Busy {
        /// The store.
        path: PathBuf,
        /// What the other process does.
        action: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// There is no room for a write.
    #[error("{path}: the disk is full: nothing of this write is stored; free some space and repeat it")]
    DiskFull {
        /// The store, or the address of the server without its password.
        path: PathBuf,
    },
    /// SQLite failed.
    #[error("{path}: {action} failed")]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// SQLite's error.
        #[source]
        source: rusqlite::Error,
    },
    /// PostgreSQL failed.
    #[cfg(feature = "postgres")]
    #[error("{location}: {reason}")]
    Postgres {
        /// The address of the store, without its password.
        location: String,
        /// What is wrong and what to do.
        reason: String,
        /// The error of the server or of the connection.
        #[source]
        source: postgres::Error,
    },
    /// A graph cannot be built or searched.
    #[error("the graph of vector `{vector}`: {reason}")]
    Graph {
        /// The named vector.
        vector: String,
        /// usearch's message.
        reason: String,
    },
    /// The caller asked to stop.
    #[error("stopped after {done} of {total}; everything that was done is saved")]
    Stopped {
        /// How many were done.
        done: usize,
        /// Of how many.
        total: usize,
    },
}

impl Error {
    /// Whether the server of the store failed or could not be reached.
    pub fn is_of_server(&self) -> bool {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }

    pub(crate) fn invalid(
        what: impl Into<String>,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> Self {
        Self::Invalid { what: what.into(), found: found.to_string(), expected: expected.to_string() }
    }

    /// An unknown name, with the nearest of `known` as a hint.
    pub(crate) fn unknown<'a>(what: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Unknown { what, name: name.to_owned(), hint: hint(name, known) }
    }
}

/// `": did you mean …?"` with the known name nearest to `name`, or a list of all when none is near. As mm-core's, which
/// this crate does not link: mm-core brings libtorch.
fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    const SIMILAR: f64 = 0.75;
    const MAX_LISTED: usize = 20;
    let known: Vec<&str> = known.into_iter().collect();
    let scored = known.iter().map(|k| (strsim::jaro_winkler(name, k), *k));
    match scored.max_by(|a, b| a.0.total_cmp(&b.0)) {
        None => ": none is known here".into(),
        Some((score, nearest)) if score > SIMILAR => format!(": did you mean `{nearest}`?"),
        _ if known.len() > MAX_LISTED => {
            format!(": known are {} and {} more", known[..MAX_LISTED].join(", "), known.len() - MAX_LISTED)
        }
        _ => format!(": known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_suggest_the_nearest_known_one() {
        let message = |name| Error::unknown("field", name, ["year", "kind"]).to_string();
        assert_eq!(message("yaer"), "unknown field `yaer`: did you mean `year`?");
        assert_eq!(message("price"), "unknown field `price`: known are year, kind");
    }
}
