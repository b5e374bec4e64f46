//! Reading sentences from text files, one per line.

use crate::{Error, Result};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

/// Longest sentence in words; longer lines are split, as in gensim.
const MAX_SENTENCE_LENGTH: usize = 10_000;

/// Bytes between two progress reports.
const PROGRESS_INTERVAL: u64 = 1 << 22;

/// Adds the path to an input or output error.
pub(super) fn io_error(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |error| Error::folder(&path, error)
}

/// Calls `process` with the words of each sentence and `on_bytes` with the number of bytes read since its last call.
pub(super) fn for_each_sentence(
    files: &[PathBuf],
    on_bytes: &mut dyn FnMut(u64),
    process: &mut dyn FnMut(&[&str]) -> Result<()>,
) -> Result<()> {
    let mut line = Vec::new();
    for path in files {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(io_error(path))?);
        let mut bytes = 0u64;
        loop {
            line.clear();
            let count = reader.read_until(b'\n', &mut line).map_err(io_error(path))?;
            if count == 0 {
                break;
            }
            bytes += count as u64;
            // Invalid UTF-8 is replaced, as gensim's readers do.
            let text = String::from_utf8_lossy(&line);
            let words: Vec<&str> = text.split_whitespace().collect();
            for sentence in words.chunks(MAX_SENTENCE_LENGTH) {
                process(sentence)?;
            }
            if bytes > PROGRESS_INTERVAL {
                on_bytes(bytes);
                bytes = 0;
            }
        }
        on_bytes(bytes);
    }
    Ok(())
}
