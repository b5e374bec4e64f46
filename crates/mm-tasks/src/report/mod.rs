//! Reports as self-contained HTML files. The report of a task is in the task's folder; this module has what they share.

pub(crate) mod chart;
pub(crate) mod curves;
mod diagnosis;
mod examples;
pub(crate) mod heatmap;
pub(crate) mod html;
pub(crate) mod image_grid;
pub(crate) mod page;
pub(crate) mod tsne;

pub use chart::{Line, lines, scatter};
pub use diagnosis::{CorrectionResult, Diagnosis, DirectionMetrics, correction_table, diagnose, diagnosis_page};
pub use examples::metrics_report;
pub(crate) use examples::{Example, examples_page};
pub use heatmap::{attention_image, attribution_image, overlay_heatmap};
pub(crate) use html::{escape as html_escape, page as html_page, table as html_table, thumbnail as html_thumbnail};
pub use image_grid::save_png;
pub use page::Report;
pub use tsne::tsne;
