//! Which frames of a video are sampled.

/// Which frames of a video are taken: always at equal distances over the whole video.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FrameSampling {
    /// This many; a shorter video gives some of them twice.
    Exactly(usize),
    /// This many, or all frames of a shorter video.
    AtMost(usize),
    /// So many in each second of the video, as transformers' `Qwen2VLVideoProcessor` counts them.
    PerSecond {
        /// Frames in a second.
        fps: f64,
        /// Fewest frames of a video that has as many.
        min_frames: usize,
        /// Most frames.
        max_frames: usize,
        /// The number of frames is rounded down to a multiple of this.
        multiple_of: usize,
    },
}

impl From<usize> for FrameSampling {
    fn from(count: usize) -> Self {
        Self::Exactly(count)
    }
}

impl FrameSampling {
    /// The number of frames that are taken of a video with `total` frames (at least 1), `frame_rate` of them in a
    /// second.
    ///
    /// ```
    /// use mm_data::decode::FrameSampling;
    ///
    /// let two_a_second = FrameSampling::PerSecond { fps: 2.0, min_frames: 4, max_frames: 768, multiple_of: 2 };
    /// assert_eq!(two_a_second.count(300, 30.0), 20);
    /// assert_eq!(FrameSampling::AtMost(8).count(5, 30.0), 5);
    /// ```
    pub fn count(self, total: usize, frame_rate: f64) -> usize {
        match self {
            Self::Exactly(count) => count,
            Self::AtMost(count) => count.min(total),
            Self::PerSecond { fps, min_frames, max_frames, multiple_of } => {
                let step = multiple_of.max(1);
                let most = max_frames.min(total) / step * step;
                let wanted = total as f64 / frame_rate * fps;
                // A video with fewer frames than one step gives those that it has.
                let count = wanted.max(min_frames as f64).min(most as f64);
                (count as usize / step * step).max(step.min(total)).max(1)
            }
        }
    }

    /// The frames that are taken, ascending: frame ⌊i · total / count⌋ for each i.
    pub fn indices(self, total: usize, frame_rate: f64) -> Vec<usize> {
        let count = self.count(total, frame_rate);
        (0..count).map(|i| i * total / count).collect()
    }

    /// Whether it depends on the frame rate.
    pub(super) fn needs_frame_rate(self) -> bool {
        matches!(self, Self::PerSecond { .. })
    }
}
