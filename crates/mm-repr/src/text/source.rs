//! Text sources.

use mm_core::{Error, Result, Source};
use std::borrow::Cow;

/// The text itself, or the contents of a file.
pub(crate) fn read_text(source: &Source) -> Result<Cow<'_, str>> {
    match source {
        Source::Text(text) => Ok(Cow::Borrowed(text)),
        Source::Path(path) => Ok(Cow::Owned(mm_data::decode::read_text(path, None)?)),
        Source::Value(value) => Err(Error::Sample(format!("found {value}, expected a text"))),
    }
}
