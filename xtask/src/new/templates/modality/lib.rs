//! The modality `template_name`: sequences of readings, each with a number for every channel of a sensor.
//!
//! [`register`] adds it to the registry of a program: `kind = "template_name"` is then an encoder of every config, and
//! `mm fit` recognizes its columns. A value is a list of readings (`[[0.1, 0.2], [0.3, 0.4]]`), or a file with one reading a
//! line, its numbers separated by commas.

mod encoder;
mod processor;
mod register;
#[cfg(test)]
mod tests;

pub use encoder::TemplateNameEncoder;
pub use processor::{Statistics, TemplateNameProcessor, readings};
pub use register::register;
