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
