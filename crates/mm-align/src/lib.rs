//! Features of two modalities are made to correspond.
//!
//! Functions take tensors and give tensors, and know nothing of files or models: whoever has two arrays of features whose rows
//! belong together can use this crate alone.
//!
//! ```
//! use mm_align::contrastive::{info_nce, Similarity};
//! use mm_core::{Device, DType, Tensor};
//! # fn main() -> mm_align::Result<()> {
//! let pictures = Tensor::randn(&[8, 32], DType::F32, Device::Cpu)?.set_requires_grad(true)?;
//! let captions = Tensor::randn(&[8, 32], DType::F32, Device::Cpu)?;
//! let loss = info_nce(&Similarity::cosine(&pictures, &captions)?, &Tensor::from_slice(&[10f32])?, None, 0.0)?;
//! loss.backward()?;
//! assert!(pictures.grad().is_some());
//! # Ok(())
//! # }
//! ```

pub mod attention;
pub mod contrastive;
pub mod correlation;
pub mod diagnose;
pub mod discrepancy;
mod error;
pub mod memory;
pub mod robust;
pub mod supervised;
pub mod time_warp;
pub mod transport;

pub use contrastive::{Contrastive, ContrastiveConfig, ContrastiveKind};
pub use error::{Error, Result};
pub use memory::MemoryConfig;
pub use robust::{RobustConfig, RobustKind};
