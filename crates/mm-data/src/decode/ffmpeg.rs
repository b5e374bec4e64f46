//! Runs the ffmpeg program: the system's, or the one that `cargo xtask setup` downloads.

use crate::{Error, Result};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The path of the ffmpeg program: `MM_FFMPEG` if set, otherwise the first one on the `PATH`, otherwise the one that
/// `cargo xtask setup` downloaded.
///
/// # Errors
/// When none of these exists.
pub fn ffmpeg() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MM_FFMPEG") {
        return Ok(path.into());
    }
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&search_path).map(|p| p.join("ffmpeg")).find(|p| p.is_file()) {
        return Ok(found);
    }
    let downloaded = mm_core::cache_dir().join("ffmpeg/ffmpeg");
    downloaded.is_file().then_some(downloaded).ok_or_else(|| {
        Error::Config(
            "decoding video requires the ffmpeg program, and none was found; run `cargo xtask setup`, or install it \
             (Debian: apt-get install ffmpeg)"
                .into(),
        )
    })
}

/// What a run of ffmpeg wrote.
pub(super) struct Output {
    pub stdout: Vec<u8>,
    /// What it logged to stderr.
    pub log: String,
}

impl Output {
    /// The first line of the log, or `default` when the log is empty.
    pub fn first_line<'a>(&'a self, default: &'a str) -> &'a str {
        self.log.lines().next().unwrap_or(default).trim()
    }
}

/// Runs ffmpeg on the file `path`, which must exist, with these arguments.
pub(super) fn run(path: &Path, arguments: &[&OsStr]) -> Result<Output> {
    if !path.is_file() {
        return Err(Error::file(path, "cannot be read: no such file"));
    }
    let program = ffmpeg()?;
    let output =
        Command::new(&program).args(["-nostdin", "-hide_banner"]).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::file(&program, format!("cannot be run: {e}")))?;
    Ok(Output { stdout: output.stdout, log: String::from_utf8_lossy(&output.stderr).into_owned() })
}
