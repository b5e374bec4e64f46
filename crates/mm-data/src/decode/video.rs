//! Video files → frames, through the ffmpeg program.

use super::{ImageLimits, decode_image_bytes, ffmpeg};
use crate::{Error, Result};
use image::RgbImage;
use std::{ffi::OsStr, path::Path};

/// The duration and streams of a video, as ffmpeg reports them.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoInfo {
    /// Duration in seconds; 0 where ffmpeg reports none.
    pub seconds: f64,
    /// Whether it has a video stream.
    pub has_video: bool,
    /// Whether it has an audio stream.
    pub has_audio: bool,
}

/// The duration and streams of a video.
///
/// # Errors
/// When ffmpeg finds no streams in the file.
pub fn video_info(path: &Path) -> Result<VideoInfo> {
    let log = ffmpeg::run(path, &["-i".as_ref(), path.as_os_str()])?.log;
    if !log.contains("Stream #") {
        let last = log
            .lines()
            .rev()
            .find(|l| !l.trim().is_empty() && !l.contains("At least one output"))
            .unwrap_or("no streams");
        return Err(Error::file(path, format!("not a video that ffmpeg can read: {}", last.trim())));
    }
    let clock = log.split("Duration: ").nth(1).and_then(|rest| rest.split(',').next()).unwrap_or("N/A");
    let seconds =
        clock.split(':').try_fold(0.0, |sum, part| part.trim().parse::<f64>().map(|v| sum * 60.0 + v)).unwrap_or(0.0);
    Ok(VideoInfo { seconds, has_video: log.contains(": Video:"), has_audio: log.contains(": Audio:") })
}

/// The frames nearest to the given times, in seconds.
pub fn frames_at(path: &Path, seconds: &[f64], limits: &ImageLimits) -> Result<Vec<RgbImage>> {
    seconds
        .iter()
        .map(|at| {
            let at_text = format!("{at:.4}");
            let flags = ["-loglevel", "error", "-ss", &at_text, "-i"].map(OsStr::new);
            let output = ["-frames:v", "1", "-f", "image2pipe", "-c:v", "bmp", "-"].map(OsStr::new);
            let arguments: Vec<_> = flags.into_iter().chain([path.as_os_str()]).chain(output).collect();
            let output = ffmpeg::run(path, &arguments)?;
            if output.stdout.is_empty() {
                let reason = output.first_line("the video has none there");
                return Err(Error::file(path, format!("no frame at {at:.3} s: {reason}")));
            }
            decode_image_bytes(&output.stdout, limits)
                .map_err(|e| Error::file(path, format!("frame at {at:.3} s: {e}")))
        })
        .collect()
}

/// The number of frames of a video.
pub fn frame_count(path: &Path) -> Result<usize> {
    // Copying the stream counts the frames without decoding them.
    let flags = ["-i".as_ref(), path.as_os_str()];
    let count_flags = ["-map", "0:v:0", "-c", "copy", "-f", "null", "-"].map(OsStr::new);
    let log = ffmpeg::run(path, &[flags.as_slice(), &count_flags].concat())?.log;
    let counted = log.rsplit("frame=").next().filter(|_| log.contains("frame="));
    let total: usize = counted.and_then(|r| r.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0);
    if total == 0 {
        let reason = log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no streams").trim();
        return Err(Error::file(path, format!("ffmpeg finds no frames in this video: {reason}")));
    }
    Ok(total)
}

/// `count` frames at equal distances over a video, decoded in one pass: frame ⌊i · total / count⌋ for each i, as
/// transformers' video processors sample them. A video with fewer frames gives some of them twice.
pub fn sample_frames(path: &Path, count: usize, limits: &ImageLimits) -> Result<Vec<RgbImage>> {
    let total = frame_count(path)?;
    let indices: Vec<usize> = (0..count).map(|i| i * total / count.max(1)).collect();
    let mut distinct = indices.clone();
    distinct.dedup();
    let frames = decode_frames(path, &distinct, total, limits)?;
    if distinct.len() == indices.len() {
        return Ok(frames);
    }
    let position = |n: &usize| distinct.binary_search(n).unwrap_or(0);
    Ok(indices.iter().map(|n| frames[position(n)].clone()).collect())
}

/// The frames at these ascending indices of a video of `total` frames.
fn decode_frames(path: &Path, indices: &[usize], total: usize, limits: &ImageLimits) -> Result<Vec<RgbImage>> {
    let select = indices.iter().map(|n| format!("eq(n\\,{n})")).collect::<Vec<_>>().join("+");
    let select = format!("select={select}");
    let flags = ["-loglevel", "error", "-i"].map(OsStr::new);
    let output = ["-map", "0:v:0", "-vf", &select, "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "bmp", "-"];
    let arguments: Vec<_> = flags.into_iter().chain([path.as_os_str()]).chain(output.map(OsStr::new)).collect();
    let output = ffmpeg::run(path, &arguments)?;
    let (mut frames, mut rest) = (Vec::with_capacity(indices.len()), output.stdout.as_slice());
    // A bmp states its own size in bytes 2 to 5.
    while let Some(size) = rest.get(2..6).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let Some(frame) = rest.get(..size).filter(|p| p.len() > 6) else { break };
        let index = indices.get(frames.len()).copied().unwrap_or(0);
        frames.push(decode_image_bytes(frame, limits).map_err(|e| Error::file(path, format!("frame {index}: {e}")))?);
        rest = &rest[size..];
    }
    if frames.len() != indices.len() {
        let reason = output.first_line("the rest of the file is damaged");
        let failed = indices.get(frames.len()).copied().unwrap_or(0);
        return Err(Error::file(
            path,
            format!(
                "decoded {} of the {} sampled frames (of {total}) and failed at frame {failed}: {reason}",
                frames.len(),
                indices.len()
            ),
        ));
    }
    Ok(frames)
}
