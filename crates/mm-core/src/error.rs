//! The error type: each message says where, what was found, what was expected, and what to do.

use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error and its causes. Errors often include the text of their source: each is told once.
pub fn describe_error(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// An error of mm-core.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch rejected an operation.
    #[error("{op}: found {found}: {reason}")]
    Tensor {
        /// The operation.
        op: &'static str,
        /// Shape, dtype and device of each operand.
        found: String,
        /// The first line of libtorch's message.
        reason: String,
    },
    /// A value has another shape than the operation needs.
    #[error("{what}: found shape {found:?}, expected {expected}")]
    Shape {
        /// The value.
        what: String,
        /// The shape.
        found: Vec<i64>,
        /// The expected shape, in words.
        expected: String,
    },
    /// A setting is invalid, by itself or together with another.
    #[error("{field}: found {found}, expected {expected}")]
    Config {
        /// Dotted path of the setting.
        field: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A file could not be read, written or parsed.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do: a text, or the error of the operation.
        source: Cause,
    },
    /// A checkpoint lacks tensors that the model needs, or has them in another shape.
    #[error("{path}: does not fit the model:\n{problems}")]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// One line per problem.
        problems: String,
    },
    /// A name that is not registered.
    #[error("unknown {what} `{name}`{hint}")]
    Unknown {
        /// The kind of thing that was looked up.
        what: &'static str,
        /// The unknown name.
        name: String,
        /// The nearest known name, or all of them.
        hint: String,
    },
    /// A raw sample could not be turned into a tensor.
    #[error("{0}")]
    Sample(String),
    /// A device is not available.
    #[error("device {device}: {reason}")]
    Device {
        /// The device.
        device: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// An error of a crate that builds on this one.
    #[error(transparent)]
    Other(Cause),
}

/// The cause of an error: another error, or a text (`"…".into()`).
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

impl Error {
    /// An error about `path`.
    ///
    /// ```
    /// use std::error::Error as _;
    /// let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
    /// let error = mm_core::Error::file("a.json", missing);
    /// assert_eq!(error.to_string(), "a.json: entity not found");
    /// assert!(error.source().is_some_and(|cause| cause.is::<std::io::Error>()));
    /// ```
    pub fn file(path: impl Into<PathBuf>, cause: impl Into<Cause>) -> Self {
        Self::File { path: path.into(), source: cause.into() }
    }

    /// An error about a setting.
    pub fn config(field: impl Into<String>, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Self {
        Self::Config { field: field.into(), found: found.to_string(), expected: expected.to_string() }
    }

    /// An error about a shape.
    pub fn shape(what: impl Into<String>, found: &[i64], expected: impl std::fmt::Display) -> Self {
        Self::Shape { what: what.into(), found: found.to_vec(), expected: expected.to_string() }
    }

    /// An unknown name, with the nearest of `known` as a hint.
    pub fn unknown<'a>(what: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Unknown { what, name: name.into(), hint: hint(name, known) }
    }
}

/// `": did you mean …?"` with the known name nearest to `name`, or a list of all when none is near.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let mut scored: Vec<(f64, &str)> = known.iter().map(|k| (strsim::jaro_winkler(name, k), *k)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    match scored.first() {
        None => ": none is known here".into(),
        Some((score, nearest)) if *score > 0.75 => format!(": did you mean `{nearest}`?"),
        _ => format!(": known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_suggest_the_nearest_known_one() {
        assert_eq!(
            Error::unknown("metric", "recal", ["precision", "recall"]).to_string(),
            "unknown metric `recal`: did you mean `recall`?"
        );
        assert!(Error::unknown("metric", "x", ["precision", "recall"]).to_string().ends_with("precision, recall"));
    }
}
