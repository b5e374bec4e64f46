//! Training methods that keep one modality from dominating the others, and distillation from unimodal teachers.

mod balance;
mod distillation;
mod functional_entropy;
mod unimodal;

pub use balance::{blending_weights, gradient_scales};
pub use distillation::distillation;
pub use functional_entropy::functional_entropy;
pub use unimodal::{polarity, unimodal_labels};
