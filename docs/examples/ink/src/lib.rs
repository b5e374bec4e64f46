//! The modality `ink`: handwriting as a pen writes it, a list of strokes, each a list of points.
//!
//! [`register`] adds it to the registry of a program: `kind = "ink"` is then an encoder of every config, and `mm fit`
//! recognizes its columns. [`READER`] writes the manifest of a data set: Chinese characters with their strokes and
//! their definitions.

mod encoder;
mod processor;
mod reader;
mod register;
#[cfg(test)]
mod tests;

pub use encoder::InkEncoder;
pub use processor::{InkProcessor, NUM_CHANNELS, Statistics, readings, strokes};
pub use reader::READER;
pub use register::register;
