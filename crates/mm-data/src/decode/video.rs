//! Video files → frames, through the ffmpeg program.

use super::{
    FrameSampling, ImageLimits, decode_image_bytes,
    ffmpeg::{self, every_frame_once},
};
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
/// When ffmpeg finds no streams in the file, or cannot decode the first frame.
pub fn video_info(path: &Path) -> Result<VideoInfo> {
    let log = ffmpeg::run(path, &[], &[])?.log;
    let line_with = |start: &str| log.lines().map(str::trim_start).find_map(|line| line.strip_prefix(start));
    if line_with("Stream #").is_none() {
        let last = log
            .lines()
            .rev()
            .find(|l| !l.trim().is_empty() && !l.contains("At least one output"))
            .unwrap_or("no streams");
        return Err(Error::file(path, format!("not a video that ffmpeg can read: {}", last.trim())));
    }
    let clock = line_with("Duration: ").and_then(|rest| rest.split(',').next()).unwrap_or("N/A");
    let seconds =
        clock.split(':').try_fold(0.0, |sum, part| part.trim().parse::<f64>().map(|v| sum * 60.0 + v)).unwrap_or(0.0);
    let info = VideoInfo { seconds, has_video: log.contains(": Video:"), has_audio: log.contains(": Audio:") };
    if info.has_video {
        let before = ["-loglevel", "error"].map(OsStr::new);
        let after = [&["-map", "0:v:0", "-frames:v", "1"].map(OsStr::new)[..], &frame_output()?].concat();
        one_frame(path, &ffmpeg::run(path, &before, &after)?, "at the start", &ImageLimits::default())?;
    }
    Ok(info)
}

/// The options by which frames are written to the standard output.
fn frame_output() -> Result<Vec<&'static OsStr>> {
    let [option, value] = every_frame_once()?;
    Ok([&[option, value][..], &["-f", "image2pipe", "-c:v", "bmp", "-"].map(OsStr::new)].concat())
}

fn one_frame(path: &Path, output: &ffmpeg::Output, position: &str, limits: &ImageLimits) -> Result<RgbImage> {
    if output.stdout.is_empty() {
        let reason = output.first_line("the video has none there");
        return Err(Error::file(path, format!("no frame {position}: {reason}")));
    }
    decode_image_bytes(&output.stdout, limits).map_err(|e| Error::file(path, format!("frame {position}: {e}")))
}

/// The frames nearest to the given times, in seconds.
pub fn frames_at(path: &Path, seconds: &[f64], limits: &ImageLimits) -> Result<Vec<RgbImage>> {
    let frame = |at: &f64| {
        let at_text = format!("{at:.4}");
        let before = ["-loglevel", "error", "-ss", &at_text].map(OsStr::new);
        let after = ["-frames:v", "1", "-f", "image2pipe", "-c:v", "bmp", "-"].map(OsStr::new);
        one_frame(path, &ffmpeg::run(path, &before, &after)?, &format!("at {at:.3} s"), limits)
    };
    seconds.iter().map(frame).collect()
}

/// Properties of a video that are known before its frames are decoded.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Packets {
    /// Their number, which is that of the frames unless some are not presented (in clips that were cut without encoding
    /// them again) or cannot be decoded.
    count: usize,
    /// Frames in a second, on average.
    frame_rate: Option<f64>,
}

/// Counts the packets of a video.
fn packets(path: &Path) -> Result<Packets> {
    // Copying the stream counts the packets without decoding them.
    let log = ffmpeg::run(path, &[], &["-map", "0:v:0", "-c", "copy", "-f", "null", "-"].map(OsStr::new))?.log;
    let counted = log.rsplit("frame=").next().filter(|_| log.contains("frame="));
    let total: usize = counted.and_then(|r| r.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0);
    if total == 0 {
        let reason = log.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("no streams").trim();
        return Err(Error::file(path, format!("ffmpeg finds no frames in this video: {reason}")));
    }
    Ok(Packets { count: total, frame_rate: frame_rate(&log) })
}

/// The frame rate of the first video stream, from ffmpeg's log: `Stream #0:0: Video: …, 29.97 fps, …`. Those of NTSC,
/// which are written with two decimals, are 1000/1001 of a whole number.
fn frame_rate(log: &str) -> Option<f64> {
    let stream = log.lines().find(|line| line.contains("Stream #") && line.contains(": Video:"))?;
    let fields = stream.split(',').map(str::trim);
    let stated: f64 = fields.filter_map(|f| f.strip_suffix(" fps")).find_map(|f| f.parse().ok())?;
    let ntsc = (stated * 1.001).round() / 1.001;
    let is_ntsc = stated.fract() != 0.0 && (ntsc - stated).abs() < 0.006;
    Some(if is_ntsc { ntsc } else { stated }).filter(|rate| *rate > 0.0)
}

/// The number of frames of a video that are presented; all are decoded.
pub fn frame_count(path: &Path) -> Result<usize> {
    let found = decode_frames(path, &[0], &ImageLimits::default())?;
    if found.frames.is_empty() {
        return Err(found.error(path, &[0]));
    }
    Ok(found.total)
}

/// Frames at equal distances over a video: frame ⌊i · total / count⌋ for each i, as transformers' video processors
/// sample them. Of a number of frames, a shorter video gives some twice; see [`FrameSampling`] for other rules.
///
/// # Errors
/// When the video cannot be decoded, or states no frame rate where the rule needs one.
pub fn sample_frames(path: &Path, sampling: impl Into<FrameSampling>, limits: &ImageLimits) -> Result<Vec<RgbImage>> {
    let sampling = sampling.into();
    let Packets { count: packets, frame_rate } = packets(path)?;
    let frame_rate = match frame_rate {
        None if sampling.needs_frame_rate() => {
            return Err(Error::file(path, "found no frame rate, expected one, as frames are sampled by the second"));
        }
        rate => rate.unwrap_or(0.0),
    };
    // Decoding counts the frames. Nearly always there are as many as packets; otherwise those that were sampled are the
    // wrong ones.
    let mut sampled = sampling.indices(packets, frame_rate);
    let mut found = decode_frames(path, &distinct(&sampled), limits)?;
    if found.total != packets && found.total > 0 {
        sampled = sampling.indices(found.total, frame_rate);
        found = decode_frames(path, &distinct(&sampled), limits)?;
    }
    let distinct = distinct(&sampled);
    if found.frames.len() != distinct.len() {
        return Err(found.error(path, &distinct));
    }
    if distinct.len() == sampled.len() {
        return Ok(found.frames);
    }
    let position = |n: &usize| distinct.binary_search(n).unwrap_or(0);
    Ok(sampled.iter().map(|n| found.frames[position(n)].clone()).collect())
}

fn distinct(ascending: &[usize]) -> Vec<usize> {
    let mut distinct = ascending.to_vec();
    distinct.dedup();
    distinct
}

/// The outcome of decoding a video.
struct Decoded {
    frames: Vec<RgbImage>,
    /// The number of frames of the video.
    total: usize,
    /// The first error that ffmpeg logged.
    reason: Option<String>,
}

impl Decoded {
    /// The error that not all of the frames with these indices were decoded.
    fn error(&self, path: &Path, indices: &[usize]) -> Error {
        let reason = self.reason.as_deref().unwrap_or("the rest of the file is damaged");
        let failed = indices.get(self.frames.len()).copied().unwrap_or(0);
        Error::file(
            path,
            format!(
                "decoded {} of the {} sampled frames (of {}) and failed at frame {failed}: {reason}",
                self.frames.len(),
                indices.len(),
                self.total
            ),
        )
    }
}

/// Decodes a video and keeps the frames at these ascending indices.
fn decode_frames(path: &Path, indices: &[usize], limits: &ImageLimits) -> Result<Decoded> {
    let select = indices.iter().map(|n| format!("eq(n\\,{n})")).collect::<Vec<_>>().join("+");
    let select = format!("select={select}");
    // Verbose logs have the number of decoded frames.
    let before = ["-loglevel", "level+verbose"].map(OsStr::new);
    let after = [&["-map", "0:v:0", "-vf", &select].map(OsStr::new)[..], &frame_output()?].concat();
    let output = ffmpeg::run(path, &before, &after)?;
    let errors: Vec<&str> = output.log.lines().filter(|l| l.contains("[error]") || l.contains("[fatal]")).collect();
    if let Some(cut) = errors.iter().find(|l| l.contains("partial file") || l.contains("ended prematurely")) {
        return Err(Error::file(path, format!("the video is cut short: {}", cut.trim())));
    }
    let (mut frames, mut rest) = (Vec::with_capacity(indices.len()), output.stdout.as_slice());
    // A bmp states its own size in bytes 2 to 5.
    while let Some(size) = rest.get(2..6).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize) {
        let Some(frame) = rest.get(..size).filter(|p| p.len() > 6) else { break };
        let index = indices.get(frames.len()).copied().unwrap_or(0);
        frames.push(decode_image_bytes(frame, limits).map_err(|e| Error::file(path, format!("frame {index}: {e}")))?);
        rest = &rest[size..];
    }
    let total = decoded_count(&output.log).unwrap_or(frames.len());
    let reason = errors.first().map(|line| line.trim().to_owned());
    if let (Some(reason), true) = (&reason, total > 0) {
        tracing::warn!("{}: ffmpeg decoded {total} frames and reports: {reason}", path.display());
    }
    Ok(Decoded { frames, total, reason })
}

/// The number of frames that ffmpeg decoded, from its log: `Input stream #0:0 (video): 48 packets read (17184 bytes);
/// 32 frames decoded;`.
fn decoded_count(log: &str) -> Option<usize> {
    let line = log.lines().find(|line| line.contains("(video)") && line.contains("frames decoded"))?;
    line.split("frames decoded").next()?.split_whitespace().next_back()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{decode_audio_track, ffmpeg};
    use std::process::Command;

    /// Makes a video of 20 frames, one gray level after the other, of which only the last 11 are presented: a clip cut
    /// without encoding it again. `None` where there is no ffmpeg.
    fn cut_clip(folder: &Path) -> Option<std::path::PathBuf> {
        let program = ffmpeg().ok()?;
        let run = |arguments: &[&str]| {
            let mut command = Command::new(&program);
            command.args(["-nostdin", "-loglevel", "error", "-y"]).args(arguments).current_dir(folder);
            assert!(command.status().unwrap().success());
        };
        let video = "color=black:s=32x32:r=10,geq=lum='16+10*N':cb=128:cr=128";
        // One keyframe, at the start.
        let encode = ["-t", "2", "-c:v", "mpeg4", "-q:v", "2", "-g", "20", "-sc_threshold", "1000000000", "-f", "mp4"];
        run(&[&["-f", "lavfi", "-i", video], &encode[..], &["whole.mp4"]].concat());
        run(&["-ss", "0.85", "-i", "whole.mp4", "-c", "copy", "cut.mp4"]);
        Some(folder.join("cut.mp4"))
    }

    fn levels(frames: &[RgbImage]) -> Vec<u8> {
        frames.iter().map(|f| f.get_pixel(16, 16)[0]).collect()
    }

    #[test]
    fn frames_of_a_cut_clip_are_those_that_are_presented() {
        let folder = tempfile::tempdir().unwrap();
        let Some(clip) = cut_clip(folder.path()) else { return };
        let frames = frame_count(&clip).unwrap();
        assert_eq!((packets(&clip).unwrap(), frames), (Packets { count: 20, frame_rate: Some(10.0) }, 11));
        let all = levels(&sample_frames(&clip, 11_usize, &ImageLimits::default()).unwrap());
        assert!(all.windows(2).all(|pair| pair[1] > pair[0] + 5), "{all:?}");
        let some = levels(&sample_frames(&clip, 4_usize, &ImageLimits::default()).unwrap());
        assert_eq!(some, [all[0], all[2], all[5], all[8]]);
        let count = |sampling: FrameSampling| sample_frames(&clip, sampling, &ImageLimits::default()).unwrap().len();
        assert_eq!((count(FrameSampling::AtMost(30)), count(FrameSampling::Exactly(24))), (11, 24));
        // 1.1 seconds of five frames each, in pairs.
        assert_eq!(count(FrameSampling::PerSecond { fps: 5.0, min_frames: 2, max_frames: 768, multiple_of: 2 }), 4);
    }

    #[test]
    fn any_file_name_is_that_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let Some(clip) = cut_clip(folder.path()) else { return };
        for name in ["12:30:05.mp4", "http:x.mp4", "100%d.mp4", "-y.mp4", "a\nb.mp4", "a 'b' \"c\".mp4", "é|&.mp4"] {
            let path = folder.path().join(name);
            std::fs::copy(&clip, &path).unwrap();
            let info = video_info(&path).unwrap();
            assert!(info.has_video && (info.seconds - 1.2).abs() < 0.11, "{name:?}: {info:?}");
            assert_eq!(sample_frames(&path, 2_usize, &ImageLimits::default()).unwrap().len(), 2, "{name:?}");
            let error = decode_audio_track(&path, 8000).unwrap_err().to_string();
            assert!(error.contains("no audio track"), "{error}");
        }
    }

    #[test]
    fn logs_of_old_and_new_versions_are_read() {
        let old = "[verbose]   Input stream #0:0 (video): 48 packets read (17184 bytes); 32 frames decoded; ";
        let new = "[in#0/mov @ 0x5] [verbose]   Input stream #0:1 (video): 9 packets read (1 bytes); 7 frames decoded; \
                   0 decode errors;";
        assert_eq!((decoded_count(old), decoded_count(new), decoded_count("")), (Some(32), Some(7), None));
        let stream =
            |rate: &str| format!("  Stream #0:1[0x2](und): Video: h264, 50x38 [SAR 1:1], 9 kb/s, {rate}, 90k tbn");
        assert_eq!(frame_rate(&stream("25 fps, 25 tbr")), Some(25.0));
        assert_eq!(frame_rate(&stream("29.97 fps, 29.97 tbr")).map(|r| (r * 1001.0).round()), Some(30_000.0));
        assert_eq!(frame_rate(&stream("23.98 fps, 23.98 tbr")).map(|r| (r * 1001.0).round()), Some(24_000.0));
        assert_eq!(frame_rate(&stream("12.50 fps, 25 tbr")), Some(12.5));
        assert_eq!(frame_rate(&stream("90k tbr")), None);
    }
}
