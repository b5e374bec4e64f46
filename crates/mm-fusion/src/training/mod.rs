//! What keeps the modality that learns fastest from drowning the others, and what one network can learn from another.

mod balance;
mod distill;
mod entropy;
mod unimodal;

pub use balance::{blending_weights, gradient_scales, scale_gradient};
pub use distill::distillation;
pub use entropy::functional_entropy;
pub use unimodal::{polarity, unimodal_labels};
