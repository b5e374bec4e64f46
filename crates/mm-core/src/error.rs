//! One error for the crate: each message says where, what was found, what was wanted, and what to do.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong in mm-core.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation was refused by libtorch.
    #[error("{op}: found {found}: {reason}")]
    Tensor {
        /// The operation, by its name here.
        op: &'static str,
        /// Shape, dtype and device of each operand.
        found: String,
        /// libtorch's own first line.
        reason: String,
    },
    /// A value has another shape than the operation needs.
    #[error("{what}: found shape {found:?}, wanted {wanted}")]
    Shape {
        /// What has the shape.
        what: String,
        /// The shape that was found.
        found: Vec<i64>,
        /// The shape that was wanted, in words.
        wanted: String,
    },
    /// A setting makes no sense, alone or beside another.
    #[error("{field}: found {found}, wanted {wanted}")]
    Config {
        /// Dotted path of the setting.
        field: String,
        /// What was found.
        found: String,
        /// What was wanted.
        wanted: String,
    },
    /// A file could not be read, written or understood.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was wrong with it and what to do.
        reason: String,
    },
    /// A checkpoint lacks tensors that the model needs, or has them in another shape.
    #[error("{path}: does not fit the model:\n{problems}")]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// One line a problem.
        problems: String,
    },
    /// A name that no registry entry has.
    #[error("unknown {what} `{name}`{hint}")]
    Unknown {
        /// What kind of thing was looked up.
        what: &'static str,
        /// The name that was asked for.
        name: String,
        /// The nearest known names, or all.
        hint: String,
    },
    /// A raw sample could not be turned into numbers.
    #[error("{0}")]
    Sample(String),
    /// The device asked for is not there.
    #[error("device {device}: {reason}")]
    Device {
        /// The device's name.
        device: String,
        /// Why it cannot be used.
        reason: String,
    },
}

impl Error {
    /// An error about `path`, with `reason` in words.
    pub fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), reason: reason.to_string() }
    }

    /// An error about a setting.
    pub fn config(field: impl Into<String>, found: impl std::fmt::Display, wanted: impl std::fmt::Display) -> Self {
        Self::Config { field: field.into(), found: found.to_string(), wanted: wanted.to_string() }
    }

    /// An error about a shape.
    pub fn shape(what: impl Into<String>, found: &[i64], wanted: impl std::fmt::Display) -> Self {
        Self::Shape { what: what.into(), found: found.to_vec(), wanted: wanted.to_string() }
    }

    /// An unknown name with the nearest of `known` as a hint.
    pub fn unknown<'a>(what: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Unknown { what, name: name.into(), hint: hint(name, known) }
    }
}

/// `": did you mean …?"` from the known names nearest to `name`, or the list of them all when none is near.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let mut scored: Vec<(f64, &str)> = known.iter().map(|k| (strsim::jaro_winkler(name, k), *k)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    match scored.first() {
        None => ": none is known here".into(),
        Some((score, near)) if *score > 0.75 => format!(": did you mean `{near}`?"),
        _ => format!(": known are {}", known.join(", ")),
    }
}
