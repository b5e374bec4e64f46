//! Audio encoders.

mod speech;

pub use speech::{SpeechTower, SpeechTowerConfig};
