//! The task `template_name`: a number is predicted from one modality, by a linear layer on top of an encoder.
//!
//! A program registers [`spec()`]; a config then names it: `task = "template_name"`.

mod config;
mod model;
mod spec;
#[cfg(test)]
mod tests;
mod training;

pub use config::TemplateNameConfig;
pub use model::TemplateName;
pub use spec::{TASK, spec};
