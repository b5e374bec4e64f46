//! Paths that commands write to.

use crate::exit::usage;
use clap::builder::{OsStringValueParser, TypedValueParser};
use std::path::{Path, PathBuf};

/// What may be written to a URL.
const EXPECTED: &str = "a path on this machine; s3://, gs:// and az:// take the outputs of --shards (embed, caption, answer, transcribe, predict) and of mm data shard";

/// A path on this machine. (A URL would become a folder named `s3:`.)
pub(crate) fn local_path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().try_map(|text| {
        let path = PathBuf::from(text);
        if mm_data::is_remote(&path) { Err(format!("expected {EXPECTED}")) } else { Ok(path) }
    })
}

/// Refuses the URL of a single file that would be written.
pub(crate) fn refuse_url(out: &Path) -> anyhow::Result<()> {
    if mm_data::is_remote(out) {
        usage!("--out: found {}, expected {EXPECTED}", out.display());
    }
    Ok(())
}
