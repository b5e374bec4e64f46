//! Image encoders.

mod efficientnet;

pub use efficientnet::{EfficientNet, EfficientNetConfig};
