//! Runs the ffmpeg program: the system's, or the one that `mm setup` downloads.

use crate::{Error, Result};
use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
};

/// The path of the ffmpeg program: `MM_FFMPEG` if set, otherwise the first one on the `PATH`, otherwise the one that
/// `mm setup` downloaded.
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
            "decoding video requires the ffmpeg program, and none was found; run `mm setup`, or install it \
             (Debian: apt-get install ffmpeg)"
                .into(),
        )
    })
}

/// The version of [`ffmpeg`] ("4.2.2"), as it says itself.
///
/// # Errors
/// When there is none, or it cannot be run.
pub fn ffmpeg_version() -> Result<String> {
    let program = ffmpeg()?;
    let text = output(&program, &["-version".as_ref()])?.stdout;
    let text = String::from_utf8_lossy(&text);
    let version = text.strip_prefix("ffmpeg version ").and_then(|rest| rest.split_whitespace().next());
    version.map(ToOwned::to_owned).ok_or_else(|| {
        let found = text.lines().next().unwrap_or("nothing").to_owned();
        Error::file(&program, format!("`-version`: found `{found}`, expected `ffmpeg version …`"))
    })
}

/// The options by which every decoded frame is written once, whatever its time. `-fps_mode` is newer than ffmpeg 5.0,
/// and later versions drop `-vsync`; versions of builds from git are no numbers, so the program's own help decides.
pub(super) fn every_frame_once() -> Result<[&'static OsStr; 2]> {
    static FOUND: OnceLock<Mutex<HashMap<PathBuf, bool>>> = OnceLock::new();
    let program = ffmpeg()?;
    let mut found = FOUND.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    let has_fps_mode = if let Some(known) = found.get(&program) {
        *known
    } else {
        let has_fps_mode = has_fps_mode(&program)?;
        found.insert(program, has_fps_mode);
        has_fps_mode
    };
    Ok([if has_fps_mode { "-fps_mode" } else { "-vsync" }, "passthrough"].map(OsStr::new))
}

/// Whether the help of an ffmpeg program lists `-fps_mode`.
fn has_fps_mode(program: &Path) -> Result<bool> {
    let help = output(program, &["-hide_banner", "-h", "long"].map(OsStr::new))?.stdout;
    Ok(String::from_utf8_lossy(&help).contains("-fps_mode"))
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

/// Runs ffmpeg on the file `path`, which must exist, with options `before` and `after` its name.
pub(super) fn run(path: &Path, before: &[&OsStr], after: &[&OsStr]) -> Result<Output> {
    if !path.is_file() {
        return Err(Error::file(path, "cannot be read: no such file"));
    }
    // `file:` keeps names with colons from being protocols and those with dashes from being options. Playlists that
    // name other addresses are not followed.
    let mut input = OsString::from("file:");
    input.push(path);
    let fixed = ["-nostdin", "-hide_banner", "-protocol_whitelist", "file"].map(OsStr::new);
    output(&ffmpeg()?, &[&fixed, before, &["-i".as_ref(), input.as_os_str()], after].concat())
}

fn output(program: &Path, arguments: &[&OsStr]) -> Result<Output> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::file(program, format!("cannot be run: {e}")))?;
    Ok(Output { stdout: output.stdout, log: String::from_utf8_lossy(&output.stderr).into_owned() })
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_help_of_the_program_decides_between_fps_mode_and_vsync() {
        let folder = tempfile::tempdir().unwrap();
        let program = |name: &str, option: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho 'Advanced Video options:'\necho '{option}  set it'\n"))
                .unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        assert!(has_fps_mode(&program("new", "-fps_mode")).unwrap());
        assert!(!has_fps_mode(&program("old", "-vsync")).unwrap());
        assert!(has_fps_mode(&folder.path().join("none")).unwrap_err().to_string().contains("cannot be run"));
    }

    /// Runs the tests of video and audio tracks again with ffmpeg 4.2, which `MM_FFMPEG_42` names.
    #[test]
    fn ffmpeg_4_2_decodes_the_same_frames() {
        let Some(program) = std::env::var_os("MM_FFMPEG_42") else {
            println!("skipped: MM_FFMPEG_42 does not name an ffmpeg 4.2");
            return;
        };
        assert!(!has_fps_mode(Path::new(&program)).unwrap());
        let tests = Command::new(std::env::current_exe().unwrap())
            .args(["decode::video::tests::", "decode::audio::tests::video", "--nocapture"])
            .env("MM_FFMPEG", &program)
            .env_remove("MM_FFMPEG_42")
            .output()
            .unwrap();
        let log = String::from_utf8_lossy(&tests.stdout);
        assert!(tests.status.success() && log.contains("4 passed"), "{log}{}", String::from_utf8_lossy(&tests.stderr));
    }
}
