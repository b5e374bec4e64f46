//! Text sources.

use mm_core::{Error, Result, Source};
use std::borrow::Cow;

/// The text itself, or the contents of a file, as it is written.
pub(crate) fn read_text(source: &Source) -> Result<Cow<'_, str>> {
    match source {
        Source::Text(text) => Ok(Cow::Borrowed(text)),
        Source::Path(path) => Ok(Cow::Owned(mm_data::decode::read_text(path, None)?)),
        Source::Bytes(file) => match file.read()? {
            bytes if bytes.len() <= mm_data::decode::TEXT_LIMIT => {
                let text = mm_data::decode::text_from_bytes(&bytes, None);
                Ok(Cow::Owned(text.map_err(|e| Error::Sample(format!("{}: {e}", file.name())))?))
            }
            bytes => Err(Error::Sample(format!("{}: found {} bytes, expected a text", file.name(), bytes.len()))),
        },
        other => Err(Error::Sample(format!("found {}, expected a text", mm_data::source_name(other)))),
    }
}

/// Like [`read_text`], but normalized to NFC, in which an accented letter is one character: for vocabularies made from
/// the texts themselves. Those of checkpoints are for texts as they are written.
pub(crate) fn read_normalized_text(source: &Source) -> Result<Cow<'_, str>> {
    mm_data::decode::clean_text(&read_text(source)?).map(Cow::Owned).map_err(Error::Sample)
}
