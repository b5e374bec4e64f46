//! File → numbers, for pictures and sound. (Text needs a model's own tokenizer: mm-repr has that.)

use crate::{
    Result,
    augment::{SpecAugment, rand_augment, random_flip, random_resized_crop},
    decode::{ImageLimits, decode_audio, decode_image, frame_count, sample_frames},
    transform::{ImageTransform, Mel, MelConfig},
};
use mm_core::{Error as CoreError, ProcessContext, Processor, Source, Tensor};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file that a source names, where only a file will do.
pub fn require_path<'a>(source: &'a Source, what: &str) -> Result<&'a Path, CoreError> {
    match source {
        Source::Path(path) => Ok(path),
        other => Err(CoreError::Sample(format!("found {other:?}, wanted the path of {what}"))),
    }
}

/// How pictures become pixels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageProcessorConfig {
    /// Limits and background.
    pub limits: ImageLimits,
    /// Resizing, cropping, normalising.
    pub transform: ImageTransform,
    /// While training: a random piece of at least this share of the picture, maybe mirrored, instead of the middle.
    pub random_resized_crop: Option<f64>,
    /// While training: so many changes of `RandAugment`, at a strength in [0, 10], before that.
    pub rand_augment: Option<(usize, f64)>,
}

/// A picture file → `[3, height, width]`.
pub struct ImageProcessor {
    config: ImageProcessorConfig,
}

impl ImageProcessor {
    /// A processor with these settings.
    pub fn new(config: ImageProcessorConfig) -> Self {
        Self { config }
    }
}

impl Processor for ImageProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor, CoreError> {
        let mut picture = decode_image(require_path(source, "a picture")?, &self.config.limits)?;
        if let (true, Some((count, strength))) = (context.train, self.config.rand_augment) {
            picture = rand_augment(picture, count, strength, &mut context.rng);
        }
        let transform = &self.config.transform;
        if let (true, Some(share), Some((height, _))) = (context.train, self.config.random_resized_crop, transform.crop)
        {
            let piece = random_resized_crop(&picture, height, (share, 1.0), transform.interpolation, &mut context.rng)?;
            let piece = random_flip(piece, &mut context.rng);
            return Ok(crate::transform::normalize(&piece, transform.mean, transform.std)?);
        }
        Ok(transform.apply(&picture)?)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("image {:?}", self.config)
    }
}

/// A video file → `[frames, 3, height, width]`, its frames spread evenly over the video.
pub struct VideoProcessor {
    config: ImageProcessorConfig,
    frames: usize,
    /// Whether a video with fewer frames gives what it has, and not some of them twice.
    without_repeats: bool,
}

impl VideoProcessor {
    /// A processor that takes so many frames and makes of each what these settings say.
    pub fn new(config: ImageProcessorConfig, frames: usize) -> Self {
        Self { config, frames, without_repeats: false }
    }

    /// The same, which takes no frame twice of a video that has fewer.
    pub fn without_repeats(config: ImageProcessorConfig, frames: usize) -> Self {
        Self { without_repeats: true, ..Self::new(config, frames) }
    }
}

impl Processor for VideoProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor, CoreError> {
        let path = require_path(source, "a video")?;
        let count = if self.without_repeats { self.frames.min(frame_count(path)?) } else { self.frames };
        let frames = sample_frames(path, count, &self.config.limits)?;
        let frames: Vec<Tensor> = frames.iter().map(|f| self.config.transform.apply(f)).collect::<Result<_>>()?;
        Tensor::stack(&frames.iter().collect::<Vec<_>>(), 0)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("video {}{} {:?}", self.frames, if self.without_repeats { " at most" } else { "" }, self.config)
    }
}

/// How sound becomes a spectrogram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioProcessorConfig {
    /// The spectrogram.
    pub mel: MelConfig,
    /// Longest sound that is kept, in seconds; the rest is cut off (while training, a random stretch is kept).
    pub max_seconds: f64,
    /// Whether each band is brought to mean zero and variance one over the sound.
    #[serde(default)]
    pub normalize: bool,
    /// Masks while training.
    #[serde(default)]
    pub spec_augment: Option<SpecAugment>,
}

/// A sound file → `[frames, bands]`.
pub struct AudioProcessor {
    config: AudioProcessorConfig,
    mel: Mel,
}

impl AudioProcessor {
    /// A processor with these settings.
    pub fn new(config: AudioProcessorConfig) -> Result<Self> {
        if !(config.max_seconds > 0.0 && config.max_seconds <= 3600.0) {
            return Err(crate::Error::Config(format!(
                "audio.max_seconds: found {}, wanted more than 0 and at most 3600",
                config.max_seconds
            )));
        }
        Ok(Self { mel: Mel::new(config.mel.clone())?, config })
    }
}

impl Processor for AudioProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor, CoreError> {
        let path = require_path(source, "a sound")?;
        let rate = self.config.mel.sample_rate;
        let mut audio = decode_audio(path, Some(rate))?;
        let longest = ((self.config.max_seconds * f64::from(rate)) as usize).max(1);
        if audio.samples.len() > longest {
            audio.samples.truncate(longest);
        }
        // A sound shorter than one frame still gives one.
        if audio.samples.len() < self.config.mel.n_fft {
            audio.samples.resize(self.config.mel.n_fft, 0.0);
        }
        let spectrogram =
            self.mel.apply(&audio.samples).map_err(|e| CoreError::Sample(format!("{}: {e}", path.display())))?;
        let spectrogram = if self.config.normalize {
            let mean = spectrogram.mean_dim(&[0], true)?;
            let deviation = spectrogram.std_dim(&[0], false, true)?.add_scalar(1e-5)?;
            spectrogram.sub(&mean)?.div(&deviation)?
        } else {
            spectrogram
        };
        self.augment(spectrogram, context)
    }

    fn pad_to_multiple_of(&self) -> i64 {
        32
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("audio {:?} {} {}", self.config.mel, self.config.max_seconds, self.config.normalize)
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> Result<Tensor, CoreError> {
        let (true, Some(masks)) = (context.train, &self.config.spec_augment) else { return Ok(sample) };
        let mut values = sample.to_vec::<f32>()?;
        masks.apply(&mut values, self.config.mel.n_mels, &mut context.rng);
        let bands = self.config.mel.n_mels;
        Tensor::from_vec(&values, &[(values.len() / bands) as i64, bands as i64])
    }
}
