//! A run as one HTML file with everything inside it: figures, curves, pictures. No script, no font and no picture from elsewhere.

mod attribution;
mod captioning;
mod chart;
mod diagnosis;
mod finetuning;
mod heat;
mod html;
mod map;
mod picture;
mod prediction;
mod representation;
mod retrieval;
mod said;

pub use captioning::build_captioning;
pub use chart::{Line, lines, scatter};
pub use diagnosis::{CorrectionResult, Diagnosis, DirectionMetrics, correction_table, diagnose, diagnosis_page};
pub use finetuning::build_finetuning;
pub use heat::{gaze_picture, heat_picture};
pub(crate) use html::{escape as html_escape, page as html_page, table as html_table, thumbnail as html_thumbnail};
pub use map::plane;
pub use picture::save_png;
pub use prediction::build_prediction;
pub use representation::build_representation;
pub use retrieval::{Report, build};
