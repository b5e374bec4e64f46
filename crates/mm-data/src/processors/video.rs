//! Video files → frames.

use super::ImageProcessorConfig;
use crate::{
    decode::{FrameSampling, sample_frames},
    transform::{ImageTransform, Resize},
    with_path,
};
use mm_core::{ProcessContext, Processor, Result, Source, Tensor};

/// Video file → `[frames, 3, height, width]` float32, frames at equal distances over the whole video.
pub struct VideoProcessor {
    config: ImageProcessorConfig,
    sampling: FrameSampling,
    /// The most pixels of all frames together, where they are resized to a number of pixels.
    max_total_pixels: Option<u64>,
}

impl VideoProcessor {
    /// A processor that samples frames (a number, or any [`FrameSampling`]) and transforms each as an image with these
    /// settings.
    pub fn new(config: ImageProcessorConfig, sampling: impl Into<FrameSampling>) -> Self {
        Self { config, sampling: sampling.into(), max_total_pixels: None }
    }

    /// Bounds the pixels of all frames together: where frames are resized to a number of pixels
    /// ([`Resize::PixelBudget`]), each has at most an even share, but 1.05 times the fewest pixels of a frame in any
    /// case. This is `cap_pixels_per_frame` of transformers' `Qwen2VLVideoProcessor`.
    #[must_use]
    pub fn with_max_total_pixels(self, max_total_pixels: u64) -> Self {
        Self { max_total_pixels: Some(max_total_pixels), ..self }
    }

    /// The transform of each of `num_frames` frames.
    fn transform(&self, num_frames: usize) -> ImageTransform {
        let mut transform = self.config.transform.clone();
        if let (Some(Resize::PixelBudget { min_pixels, max_pixels, .. }), Some(total)) =
            (&mut transform.resize, self.max_total_pixels)
        {
            let floor = (*min_pixels as f64 * 1.05) as u64;
            *max_pixels = (*max_pixels).min(total / num_frames.max(1) as u64).max(floor);
        }
        transform
    }
}

impl Processor for VideoProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let frames = with_path(source, "a video", |path| sample_frames(path, self.sampling, &self.config.limits))?;
        let transform = self.transform(frames.len());
        let frames: Vec<Tensor> = frames.iter().map(|f| transform.apply(f)).collect::<crate::Result<_>>()?;
        Tensor::stack(&frames.iter().collect::<Vec<_>>(), 0)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        let sampling = match self.sampling {
            FrameSampling::Exactly(count) => count.to_string(),
            FrameSampling::AtMost(count) => format!("{count} without repeats"),
            FrameSampling::PerSecond { .. } => format!("{:?}", self.sampling),
        };
        let total = self.max_total_pixels.map_or_else(String::new, |n| format!(" of {n} pixels"));
        format!("video {sampling}{total} {:?} presented", self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_frames_have_fewer_pixels_each() {
        let resize = Some(Resize::PixelBudget { min_pixels: 1000, max_pixels: 50_000, multiple_of: 28 });
        let transform = ImageTransform { resize, ..ImageTransform::default() };
        let config = ImageProcessorConfig { transform, ..ImageProcessorConfig::default() };
        let processor = VideoProcessor::new(config, 4_usize).with_max_total_pixels(100_000);
        let most = |frames| match processor.transform(frames).resize {
            Some(Resize::PixelBudget { max_pixels, .. }) => max_pixels,
            _ => 0,
        };
        assert_eq!([1, 2, 3, 50, 500].map(most), [50_000, 50_000, 33_333, 2000, 1050]);
    }
}
