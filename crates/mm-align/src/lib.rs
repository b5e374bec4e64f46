#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! - Methods that fit a shared space: [`alignment_methods`] by name, open to other crates through [`AlignmentMethod`] and
//!   [`MethodRegistry`]; their mathematics in [`correlation`], [`procrustes`] and [`supervised`].
//! - Losses for training encoders: [`contrastive`], [`discrepancy`], [`attention`], [`correlation::deep_cca_loss`].
//! - Assignments and sequences: [`transport`], [`mod@dtw`], [`ctc`].
//! - Diagnosis and correction of a joint space: [`diagnose`], [`hubness`], [`memory`].

pub mod attention;
mod checks;
pub mod contrastive;
pub mod correlation;
pub mod ctc;
pub mod diagnose;
pub mod discrepancy;
pub mod distance;
pub mod dtw;
mod error;
pub mod hubness;
pub mod kernel;
pub mod memory;
mod method;
pub mod procrustes;
mod registry;
mod ridge;
pub mod supervised;
pub mod transport;

pub use contrastive::{ContrastiveConfig, ContrastiveKind, ContrastiveLoss, RobustConfig, RobustKind};
pub use error::{Error, Result};
pub use memory::MemoryConfig;
pub use method::{
    Affine, Alignment, AlignmentMethod, FitOptions, PairedFeatures, Projection, Requirements, SquareRoot, Transform,
};
pub use registry::{MethodRegistry, alignment_methods};
pub use ridge::RidgeRegression;
