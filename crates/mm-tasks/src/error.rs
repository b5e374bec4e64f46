//! The crate's error type.

use mm_core::Cause;
use std::path::PathBuf;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of mm-tasks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting or an argument has a value that cannot be used.
    #[error("{field}: found {found}, expected {expected}{}", hint.as_ref().map(|h| format!("; {h}")).unwrap_or_default())]
    Invalid {
        /// Dotted path of the setting, or the name of the argument.
        field: String,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Labels of a prediction that do not fit the problem.
    #[error("label column `{column}`: {}found {found}, expected {expected}", row.map(|row| format!("row {row}: ")).unwrap_or_default())]
    Label {
        /// The column.
        column: String,
        /// The row in the file, counted from 1; absent when it is about all rows.
        row: Option<usize>,
        /// What was found.
        found: String,
        /// What was expected.
        expected: String,
    },
    /// A table has no column of that name.
    #[error("{path}: {source}")]
    UnknownColumn {
        /// The table.
        path: PathBuf,
        /// The name, with the nearest column.
        source: mm_core::Error,
    },
    /// A setting or an argument makes no sense.
    #[error("{0}")]
    Config(String),
    /// A run or a config is of another task than the one that was asked for.
    #[error("{}", wrong_task(run.as_ref(), found, expected, usage.as_ref()))]
    WrongTask {
        /// The run folder; absent for a config.
        run: Option<PathBuf>,
        /// The task.
        found: String,
        /// The task that was expected.
        expected: String,
        /// The command that takes it.
        usage: Option<String>,
    },
    /// A run has no embeddings.
    #[error("this is {} {task} run, which has no embeddings; use `{usage}`", article(task))]
    NoEmbeddings {
        /// The task.
        task: &'static str,
        /// The command that takes it.
        usage: &'static str,
    },
    /// Work was stopped before its end.
    #[error("stopped {what} after {done} of {total}; {hint}")]
    Stopped {
        /// The work.
        what: String,
        /// How much was done.
        done: usize,
        /// Of how much.
        total: usize,
        /// How it is continued.
        hint: &'static str,
    },
    /// A file could not be written or read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: Cause,
    },
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
    /// An error of mm-data.
    #[error(transparent)]
    Data(#[from] mm_data::Error),
    /// An error of mm-repr.
    #[error(transparent)]
    Repr(#[from] mm_repr::Error),
    /// An error of mm-align.
    #[error(transparent)]
    Align(#[from] mm_align::Error),
    /// An error of mm-fusion.
    #[error(transparent)]
    Fusion(#[from] mm_fusion::Error),
    /// An error of mm-index.
    #[error(transparent)]
    Index(#[from] mm_index::Error),
    /// An error of mm-reason.
    #[error(transparent)]
    Reason(#[from] mm_reason::Error),
    /// An error of mm-train.
    #[error(transparent)]
    Train(#[from] mm_train::Error),
}

impl Error {
    /// A setting or argument with a value that cannot be used.
    pub fn invalid(field: impl Into<String>, found: impl std::fmt::Display, expected: impl std::fmt::Display) -> Self {
        Self::Invalid { field: field.into(), found: found.to_string(), expected: expected.to_string(), hint: None }
    }

    /// A file that cannot be read or written, or that has an invalid content.
    pub fn file(path: impl Into<PathBuf>, cause: impl Into<Cause>) -> Self {
        Self::File { path: path.into(), source: cause.into() }
    }

    /// A table without a column of that name; the nearest of `known` is suggested.
    pub fn unknown_column<'a>(
        path: impl Into<PathBuf>,
        what: &'static str,
        name: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        Self::UnknownColumn { path: path.into(), source: mm_core::Error::unknown(what, name, known) }
    }

    /// The same error with advice; other errors stay as they are.
    #[must_use]
    pub fn with_hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Invalid { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }
}

/// The error of a file that cannot be read or written.
pub(crate) fn io_error(path: &std::path::Path) -> impl Fn(std::io::Error) -> Error + use<> {
    let path = PathBuf::from(path);
    move |e| Error::file(&path, e)
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

fn wrong_task(run: Option<&PathBuf>, found: &str, expected: &str, usage: Option<&String>) -> String {
    let (prefix, kind) = run.map_or((String::new(), "config"), |run| (format!("{}: ", run.display()), "run"));
    let usage = usage.map(|usage| format!("; use `{usage}`")).unwrap_or_default();
    format!(
        "{prefix}this is {} {found} {kind}, expected {} {expected} {kind}{usage}",
        article(found),
        article(expected)
    )
}

impl From<Error> for mm_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Core(core) => core,
            other => Self::Other(Box::new(other)),
        }
    }
}

impl From<Error> for mm_train::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Train(train) => train,
            Error::Core(core) => core.into(),
            Error::Data(data) => data.into(),
            other => Self::Core(mm_core::Error::Other(Box::new(other))),
        }
    }
}
