//! Video files → frames.

use super::ImageProcessorConfig;
use crate::{
    decode::{sample_frames, sample_frames_without_repeats},
    with_path,
};
use mm_core::{ProcessContext, Processor, Result, Source, Tensor};

/// Video file → `[frames, 3, height, width]` float32, frames at equal distances over the whole video.
pub struct VideoProcessor {
    config: ImageProcessorConfig,
    num_frames: usize,
    /// Whether a shorter video gives only the frames that it has, instead of repeating some.
    without_repeats: bool,
}

impl VideoProcessor {
    /// A processor of `num_frames` frames, each transformed as an image with these settings. Shorter videos repeat
    /// frames.
    pub fn new(config: ImageProcessorConfig, num_frames: usize) -> Self {
        Self { config, num_frames, without_repeats: false }
    }

    /// A processor of at most `num_frames` frames: a shorter video gives only the frames that it has.
    pub fn without_repeats(config: ImageProcessorConfig, num_frames: usize) -> Self {
        Self { without_repeats: true, ..Self::new(config, num_frames) }
    }
}

impl Processor for VideoProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let sample = if self.without_repeats { sample_frames_without_repeats } else { sample_frames };
        let frames = with_path(source, "a video", |path| sample(path, self.num_frames, &self.config.limits))?;
        let frames: Vec<Tensor> =
            frames.iter().map(|f| self.config.transform.apply(f)).collect::<crate::Result<_>>()?;
        Tensor::stack(&frames.iter().collect::<Vec<_>>(), 0)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        let repeats = if self.without_repeats { " without repeats" } else { "" };
        format!("video {}{repeats} {:?} presented", self.num_frames, self.config)
    }
}
