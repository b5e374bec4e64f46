//! Alignment of two modalities' features.
//!
//! Functions take and return tensors and depend on mm-core alone: the crate works for anyone who has two feature arrays
//! with paired rows.
//!
//! - Methods that fit a common space: [`alignment_methods`] by name, open to other crates through [`AlignmentMethod`] and
//!   [`MethodRegistry`]; their mathematics in [`correlation`], [`procrustes`] and [`supervised`].
//! - Losses for training encoders: [`contrastive`], [`discrepancy`], [`attention`], [`correlation::deep_cca_loss`].
//! - Assignments and sequences: [`transport`], [`mod@dtw`], [`ctc`].
//! - Diagnosis and correction of a joint space: [`diagnose`], [`hubness`], [`memory`].
//!
//! ```
//! use mm_align::contrastive::{Similarity, info_nce};
//! use mm_core::{DType, Device, Tensor};
//! # fn main() -> mm_align::Result<()> {
//! let images = Tensor::randn(&[8, 32], DType::F32, Device::Cpu)?.set_requires_grad(true)?;
//! let captions = Tensor::randn(&[8, 32], DType::F32, Device::Cpu)?;
//! let loss = info_nce(&Similarity::cosine(&images, &captions)?, &Tensor::from_slice(&[10f32])?, None, 0.0)?;
//! loss.backward()?;
//! assert!(images.grad().is_some());
//! # Ok(())
//! # }
//! ```

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
