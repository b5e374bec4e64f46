//! Video → frames and sound track, through the ffmpeg program (the system's, or the one that `cargo xtask setup` brings).

use super::{Audio, ImageLimits, decode_image_bytes};
use crate::{Error, Result};
use image::RgbImage;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What ffmpeg says of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoInfo {
    /// Length in seconds.
    pub seconds: f64,
    /// Whether it has pictures.
    pub has_video: bool,
    /// Whether it has sound.
    pub has_audio: bool,
}

/// The ffmpeg program: `MM_FFMPEG`, else on the PATH, else where `cargo xtask setup` put it.
pub fn ffmpeg() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("MM_FFMPEG") {
        return Ok(path.into());
    }
    let named = std::env::var_os("PATH").unwrap_or_default();
    if let Some(found) = std::env::split_paths(&named).map(|p| p.join("ffmpeg")).find(|p| p.is_file()) {
        return Ok(found);
    }
    let fetched = mm_core::cache_dir().join("ffmpeg/ffmpeg");
    fetched.is_file().then_some(fetched).ok_or_else(|| {
        Error::Config("video needs the ffmpeg program and none was found; run `cargo xtask setup`, or install it (Debian: apt-get install ffmpeg)".into())
    })
}

fn run(path: &Path, arguments: &[&std::ffi::OsStr]) -> Result<(Vec<u8>, String, bool)> {
    if !path.is_file() {
        return Err(Error::file(path, "cannot be read: no such file"));
    }
    let program = ffmpeg()?;
    let output =
        Command::new(&program).args(["-nostdin", "-hide_banner"]).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| Error::file(&program, format!("cannot be run: {e}")))?;
    Ok((output.stdout, String::from_utf8_lossy(&output.stderr).into_owned(), output.status.success()))
}

/// Length and streams of a video.
pub fn video_info(path: &Path) -> Result<VideoInfo> {
    let (_, log, _) = run(path, &["-i".as_ref(), path.as_os_str()])?;
    if !log.contains("Stream #") {
        let last = log
            .lines()
            .rev()
            .find(|l| !l.trim().is_empty() && !l.contains("At least one output"))
            .unwrap_or("no streams");
        return Err(Error::file(path, format!("not a video that ffmpeg reads: {}", last.trim())));
    }
    let clock = log.split("Duration: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("N/A");
    let seconds =
        clock.split(':').try_fold(0.0, |sum, part| part.trim().parse::<f64>().map(|v| sum * 60.0 + v)).unwrap_or(0.0);
    Ok(VideoInfo { seconds, has_video: log.contains(": Video:"), has_audio: log.contains(": Audio:") })
}

/// The frames nearest to the given seconds.
pub fn frames_at(path: &Path, seconds: &[f64], limits: &ImageLimits) -> Result<Vec<RgbImage>> {
    seconds
        .iter()
        .map(|at| {
            let at_text = format!("{at:.4}");
            let flags = ["-loglevel", "error", "-ss", &at_text, "-i"].map(std::ffi::OsStr::new);
            let output = ["-frames:v", "1", "-f", "image2pipe", "-c:v", "bmp", "-"].map(std::ffi::OsStr::new);
            let arguments: Vec<_> = flags.into_iter().chain([path.as_os_str()]).chain(output).collect();
            let (bytes, log, _) = run(path, &arguments)?;
            if bytes.is_empty() {
                let why = log.lines().next().unwrap_or("it has none there").trim();
                return Err(Error::file(path, format!("no frame at {at:.3} s: {why}")));
            }
            decode_image_bytes(&bytes, limits).map_err(|e| Error::file(path, format!("frame at {at:.3} s: {e}")))
        })
        .collect()
}

/// How many frames a video has.
pub fn frame_count(path: &Path) -> Result<usize> {
    // Copying counts the frames without decoding them.
    let flags = ["-i".as_ref(), path.as_os_str()];
    let count_flags = ["-map", "0:v:0", "-c", "copy", "-f", "null", "-"].map(std::ffi::OsStr::new);
    let (_, log, _) = run(path, &[flags.as_slice(), &count_flags].concat())?;
    let counted = log.rsplit("frame=").next().filter(|_| log.contains("frame="));
    let all: usize = counted.and_then(|r| r.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0);
    if all == 0 {
        let why = log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no streams").trim();
        return Err(Error::file(path, format!("a video without frames that ffmpeg reads: {why}")));
    }
    Ok(all)
}

/// `count` frames spread evenly over a video, frame ⌊i · all / count⌋ for each i (as transformers' video processors choose them), in
/// one pass; a video with fewer frames gives some of them twice.
pub fn sample_frames(path: &Path, count: usize, limits: &ImageLimits) -> Result<Vec<RgbImage>> {
    let all = frame_count(path)?;
    let flags = ["-i".as_ref(), path.as_os_str()];
    let wanted: Vec<usize> = (0..count).map(|i| i * all / count.max(1)).collect();
    let mut each = wanted.clone();
    each.dedup();
    let select = each.iter().map(|n| format!("eq(n\\,{n})")).collect::<Vec<_>>().join("+");
    let select = format!("select={select}");
    let output = ["-map", "0:v:0", "-vf", &select, "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "bmp", "-"];
    let arguments = [["-loglevel", "error"].map(std::ffi::OsStr::new).as_slice(), &flags].concat();
    let (bytes, log, _) = run(path, &[arguments.as_slice(), &output.map(std::ffi::OsStr::new)].concat())?;
    let (mut frames, mut rest) = (Vec::with_capacity(each.len()), bytes.as_slice());
    while let Some(size) = rest.get(2..6).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let Some(picture) = rest.get(..size).filter(|p| p.len() > 6) else { break };
        let number = each.get(frames.len()).copied().unwrap_or(0);
        frames
            .push(decode_image_bytes(picture, limits).map_err(|e| Error::file(path, format!("frame {number}: {e}")))?);
        rest = &rest[size..];
    }
    if frames.len() != each.len() {
        let why = log.lines().next().unwrap_or("the rest is broken").trim();
        let lost = each.get(frames.len()).copied().unwrap_or(0);
        return Err(Error::file(
            path,
            format!(
                "of {} wanted frames of {all} only {} could be decoded, up to frame {lost}: {why}",
                each.len(),
                frames.len()
            ),
        ));
    }
    if each.len() == wanted.len() {
        return Ok(frames);
    }
    let place = |n: &usize| each.binary_search(n).unwrap_or(0);
    Ok(wanted.iter().map(|n| frames[place(n)].clone()).collect())
}

/// The sound track at `rate` samples a second.
pub fn decode_audio_track(path: &Path, rate: u32) -> Result<Audio> {
    let rate_text = rate.to_string();
    let flags = ["-loglevel", "error", "-i"].map(std::ffi::OsStr::new);
    let output = ["-vn", "-ac", "1", "-ar", &rate_text, "-f", "f32le", "-"].map(std::ffi::OsStr::new);
    let arguments: Vec<_> = flags.into_iter().chain([path.as_os_str()]).chain(output).collect();
    let (bytes, log, _) = run(path, &arguments)?;
    if bytes.is_empty() {
        return Err(Error::file(
            path,
            format!("no sound track: {}", log.lines().next().unwrap_or("it has none").trim()),
        ));
    }
    let samples = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Audio { samples, sample_rate: rate })
}
