//! Videos by the pictures in them.

use mm_core::{Encoder, Error, Features, Input, Modality, ProcessContext, Processor, Result, Source, Tensor};
use mm_data::{
    decode::{ImageLimits, sample_frames},
    require_path,
};
use std::sync::Arc;

/// A video file → so many pictures of it, evenly spaced, each as a picture encoder takes it: `[frames, 3, height, width]`.
pub struct FramesProcessor {
    frames: usize,
    inner: Arc<dyn Processor>,
}

impl FramesProcessor {
    /// So many frames, each through a processor of picture files.
    pub fn new(frames: usize, inner: Arc<dyn Processor>) -> Result<Self> {
        if !(1..=64).contains(&frames) {
            return Err(Error::config("num_frames", frames, "1 to 64"));
        }
        Ok(Self { frames, inner })
    }
}

impl Processor for FramesProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let path = require_path(source, "a video")?;
        let pictures = sample_frames(path, self.frames, &ImageLimits::default())?;
        let bad = |e: &dyn std::fmt::Display| Error::Sample(format!("{}: a frame: {e}", path.display()));
        let folder = tempfile::tempdir().map_err(|e| bad(&e))?;
        let mut frames = Vec::new();
        for (number, picture) in pictures.iter().enumerate() {
            // Picture encoders read files; an uncompressed one costs next to nothing.
            let frame = folder.path().join(format!("{number}.bmp"));
            picture.save(&frame).map_err(|e| bad(&e))?;
            frames.push(self.inner.process(&Source::Path(frame), context)?);
        }
        Tensor::stack(&frames.iter().collect::<Vec<_>>(), 0)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("{} frames {}", self.frames, self.inner.fingerprint())
    }
}

/// Each frame through a picture encoder: features `[batch, frames, width]`.
pub struct FramesEncoder {
    inner: Box<dyn Encoder>,
}

impl FramesEncoder {
    /// Over a picture encoder.
    pub fn new(inner: Box<dyn Encoder>) -> Result<Self> {
        if inner.modality() != Modality::IMAGE {
            return Err(Error::config("frames.encoder", inner.modality(), "an encoder of image"));
        }
        Ok(Self { inner })
    }
}

impl Encoder for FramesEncoder {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        let shape = input.values.shape();
        if shape.len() != 5 {
            return Err(Error::shape("frames", &shape, "[batch, frames, 3, height, width]"));
        }
        let flat = Input { values: input.values.flatten(0, 1)?, mask: None };
        let vectors = self.inner.embed(&flat, train)?; // [batch · frames, width]
        Features::new(vectors.reshape(&[shape[0], shape[1], -1])?, None)
    }

    fn dim(&self) -> i64 {
        self.inner.embedding_dim()
    }

    fn modality(&self) -> Modality {
        Modality::VIDEO
    }
}
