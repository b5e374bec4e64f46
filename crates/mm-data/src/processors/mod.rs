//! Processors of image, video and audio files. (Text needs a model's own tokenizer; those are in mm-repr.)
//!
//! A processor works in two steps: *decode* turns the file into the model's input, and *augment* changes it randomly in
//! training. Where augmentation acts on the input tensor, as for spectrograms, a
//! [`CachedProcessor`](crate::CachedProcessor) stores what lies between.

mod audio;
mod image;
mod video;

pub use self::image::{ImageProcessor, ImageProcessorConfig};
pub use audio::{AudioProcessor, AudioProcessorConfig};
pub use video::VideoProcessor;

use mm_core::{Error, Source};
use std::path::Path;

/// The path of a source that must be a file; `what` names the expected file in the error ("an image").
pub fn require_path<'a>(source: &'a Source, what: &str) -> Result<&'a Path, Error> {
    match source {
        Source::Path(path) => Ok(path),
        other => Err(Error::Sample(format!("found {other:?}, expected the path of {what}"))),
    }
}
