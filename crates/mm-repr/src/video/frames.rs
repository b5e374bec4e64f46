//! Videos as sequences of frames, each encoded by an image encoder.

use mm_core::{Encoder, Error, Features, Input, Modality, ProcessContext, Processor, Result, Source, Tensor};
use mm_data::{
    decode::{ImageLimits, sample_frames},
    source_name, with_path,
};
use std::sync::Arc;

/// A video file → evenly spaced frames, each processed as an image: `[frames, 3, height, width]`.
pub struct FramesProcessor {
    num_frames: usize,
    inner: Arc<dyn Processor>,
}

impl FramesProcessor {
    /// Samples `num_frames` frames (1 to 64) and processes each with an image processor.
    ///
    /// # Errors
    /// If `num_frames` is out of range.
    pub fn new(num_frames: usize, inner: Arc<dyn Processor>) -> Result<Self> {
        if !(1..=64).contains(&num_frames) {
            return Err(Error::config("num_frames", num_frames, "1 to 64"));
        }
        Ok(Self { num_frames, inner })
    }
}

impl Processor for FramesProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let images = with_path(source, "a video", |p| sample_frames(p, self.num_frames, &ImageLimits::default()))?;
        let frame_error = |e: &dyn std::fmt::Display| Error::Sample(format!("{}: a frame: {e}", source_name(source)));
        let folder = tempfile::tempdir().map_err(|e| frame_error(&e))?;
        let mut frames = Vec::new();
        for (index, image) in images.iter().enumerate() {
            // Image processors take files; writing an uncompressed one costs little.
            let frame = folder.path().join(format!("{index}.bmp"));
            image.save(&frame).map_err(|e| frame_error(&e))?;
            frames.push(self.inner.process(&Source::Path(frame), context)?);
        }
        Tensor::stack(&frames.iter().collect::<Vec<_>>(), 0)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn augments_while_decoding(&self) -> bool {
        self.inner.augments_while_decoding()
    }

    fn fingerprint(&self) -> String {
        format!("{} frames {}", self.num_frames, self.inner.fingerprint())
    }
}

/// Embeds each frame with an image encoder: features `[batch, frames, dim]`.
pub struct FramesEncoder {
    inner: Box<dyn Encoder>,
}

impl FramesEncoder {
    /// Wraps an image encoder.
    ///
    /// # Errors
    /// If the encoder takes another modality.
    pub fn new(inner: Box<dyn Encoder>) -> Result<Self> {
        if inner.modality() != Modality::IMAGE {
            return Err(Error::config("frames.encoder", inner.modality(), "an image encoder"));
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
        let images = Input { values: input.values.flatten(0, 1)?, mask: None };
        let embeddings = self.inner.embed(&images, train)?; // [batch · frames, dim]
        Features::new(embeddings.reshape(&[shape[0], shape[1], -1])?, None)
    }

    fn dim(&self) -> i64 {
        self.inner.embedding_dim()
    }

    fn modality(&self) -> Modality {
        Modality::VIDEO
    }
}
