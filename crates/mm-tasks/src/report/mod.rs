//! A run as one HTML file with everything inside it: figures, curves, pictures. No script, no font and no picture from elsewhere.

mod chart;
mod html;
mod map;
mod picture;
mod representation;
mod retrieval;

pub use chart::{Line, lines, scatter};
pub use map::plane;
pub use picture::save_png;
pub use representation::build_representation;
pub(crate) use retrieval::mean_with_spread;
pub use retrieval::{Report, build};
