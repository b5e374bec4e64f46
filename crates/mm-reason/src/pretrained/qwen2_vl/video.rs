//! Which frames of a video Qwen2-VL sees, and how large they are: transformers' `Qwen2VLVideoProcessor`.

use mm_core::Processor;
use mm_data::{ImageProcessorConfig, VideoProcessor, decode::FrameSampling};
use mm_repr::{family::ModelBuilder, image::video_preprocessing};
use serde_json::Value;
use std::sync::Arc;

/// Frames in a second, where the checkpoint names neither these nor a number of frames: that of qwen-vl-utils, the
/// reference program, as transformers would take every frame.
const DEFAULT_FPS: f64 = 2.0;
/// Fewest and most frames, where the checkpoint does not say.
const DEFAULT_FRAMES: [u64; 2] = [4, 768];
/// Largest number of frames.
const MAX_FRAMES: u64 = 768;
/// Tokens of a video, where the checkpoint does not say.
const DEFAULT_TOKENS: u64 = 128_000;
/// Fraction of the tokens that frames may take.
const TOKEN_FRACTION: f64 = 0.9;

/// The processor of videos; `context_length` is that of the language model, in tokens.
pub(super) fn video_processor(b: &ModelBuilder<'_>, context_length: u64) -> mm_repr::Result<Arc<dyn Processor>> {
    let (file, settings) = settings(b)?;
    let error = |reason: String| mm_repr::Error::folder(b.folder.join(file), reason);
    let sampling = frame_sampling(&settings).map_err(error)?;
    let config: ImageProcessorConfig = video_preprocessing(b)?;
    let processor = VideoProcessor::new(config, sampling);
    if settings["cap_pixels_per_frame"] == false {
        return Ok(Arc::new(processor));
    }
    let number =
        |key: &str, default: u64| settings[key].as_u64().filter(|n| (1..=1 << 20).contains(n)).unwrap_or(default);
    let tokens = number("max_video_tokens", DEFAULT_TOKENS).min(context_length);
    let side = (number("patch_size", 14) * number("merge_size", 2)) as f64;
    // A token is a square of pixels in each of the frames of a temporal patch.
    let pixels = (tokens as f64 * side * side * TOKEN_FRACTION) as u64;
    Ok(Arc::new(processor.with_max_total_pixels(pixels.saturating_mul(number("temporal_patch_size", 2)))))
}

/// The settings of videos, and the file that they are in.
fn settings(b: &ModelBuilder<'_>) -> mm_repr::Result<(&'static str, Value)> {
    let own = b.json("video_preprocessor_config.json")?;
    if !own.is_null() {
        return Ok(("video_preprocessor_config.json", own));
    }
    let joint = b.json("processor_config.json")?["video_processor"].take();
    if !joint.is_null() {
        return Ok(("processor_config.json", joint));
    }
    Ok(("preprocessor_config.json", b.json("preprocessor_config.json")?))
}

/// `num_frames`, or else `fps` between `min_frames` and `max_frames`, in multiples of `temporal_patch_size`.
fn frame_sampling(settings: &Value) -> Result<FrameSampling, String> {
    let frames = |key: &str, default: u64| match &settings[key] {
        Value::Null => Ok(default as usize),
        found => match found.as_u64().filter(|n| (1..=MAX_FRAMES).contains(n)) {
            Some(frames) => Ok(frames as usize),
            None => Err(format!("{key}: found {found}, expected 1 to {MAX_FRAMES}")),
        },
    };
    let multiple_of = frames("temporal_patch_size", 2)?;
    if !settings["num_frames"].is_null() {
        if !settings["fps"].is_null() {
            return Err("fps: found a number as well as num_frames, expected one of the two".to_owned());
        }
        // Python rounds half to even.
        let patches = (frames("num_frames", 0)? as f64 / multiple_of as f64).round_ties_even() as usize;
        return Ok(FrameSampling::AtMost((patches * multiple_of).max(1)));
    }
    let fps = match &settings["fps"] {
        Value::Null => DEFAULT_FPS,
        found => found
            .as_f64()
            .filter(|fps| *fps > 0.0 && fps.is_finite())
            .ok_or_else(|| format!("fps: found {found}, expected a number above 0"))?,
    };
    let (min_frames, max_frames) = (frames("min_frames", DEFAULT_FRAMES[0])?, frames("max_frames", DEFAULT_FRAMES[1])?);
    Ok(FrameSampling::PerSecond { fps, min_frames, max_frames, multiple_of })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_those_of_the_checkpoint_or_refused() {
        let sampling = |settings: Value| frame_sampling(&settings);
        let per_second = |fps, min_frames, max_frames, multiple_of| {
            Ok(FrameSampling::PerSecond { fps, min_frames, max_frames, multiple_of })
        };
        assert_eq!(sampling(json!({})), per_second(2.0, 4, 768, 2));
        let given =
            json!({"fps": 0.5, "min_frames": 2, "max_frames": 30, "temporal_patch_size": 3, "num_frames": null});
        assert_eq!(sampling(given), per_second(0.5, 2, 30, 3));
        for (count, rounded) in [(6, 6), (5, 4), (7, 8), (1, 1)] {
            assert_eq!(sampling(json!({"num_frames": count})), Ok(FrameSampling::AtMost(rounded)));
        }
        for (settings, field) in [
            (json!({"num_frames": 0}), "num_frames: found 0"),
            (json!({"fps": -1}), "fps: found -1"),
            (json!({"fps": 2, "num_frames": 4}), "fps: found a number as well"),
            (json!({"max_frames": 100_000}), "max_frames: found 100000"),
        ] {
            let error = sampling(settings).unwrap_err();
            assert!(error.starts_with(field), "{error}");
        }
    }
}
