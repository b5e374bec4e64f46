//! The words every mm crate speaks.
//!
//! [`Tensor`] is mm's own type over libtorch's, with every operation fallible; [`Features`] is what each encoder gives and each
//! aligner, fusion and reasoner takes; [`nn`] holds the one attention and the one transformer block of the workspace; [`Params`]
//! and [`Checkpoint`] carry weights under the field's own names. Only this crate depends on tch.
//!
//! ```
//! use mm_core::{Device, Tensor};
//! # fn main() -> mm_core::Result<()> {
//! let a = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0])?.reshape(&[2, 2])?;
//! let b = (&a + &a)?;
//! assert_eq!(a.matmul(&b)?.to_vec::<f32>()?, [14.0, 20.0, 30.0, 44.0]);
//! // A wrong shape is an error that says what was found, never a panic.
//! assert!(a.matmul(&Tensor::zeros(&[3, 2], mm_core::DType::F32, Device::Cpu)?).unwrap_err().to_string().contains("[3, 2]"));
//! # Ok(())
//! # }
//! ```

mod adam;
mod adapter;
mod autocast;
pub mod checkpoint;
pub mod config;
mod device;
mod error;
mod features;
mod four_bit;
mod kernels;
mod modality;
mod module;
pub mod nn;
mod params;
mod registry;
pub mod seed;
mod tensor;

pub use adam::AdamStep;
pub use adapter::{ADAPTER_CONFIG, Adapter, LoraConfig, Quantization};
pub use autocast::autocast;
pub use checkpoint::Checkpoint;
pub use device::{DType, Device, cache_dir, num_threads, retain_freed_memory, set_num_threads};
pub use error::{Error, Result};
pub use features::{FeatureSet, Features, Input, Pooling};
pub use modality::Modality;
pub use module::{
    AttentionStep, Encoder, GenerativeDecoder, InputSet, LossOutput, Module, ProcessContext, Processor, Reasoner,
    ReasonerOutput, RepresentationLearner, Source, TrainingObjective, is_missing_cell,
};
pub use params::{Init, Params, Role, Scope};
pub use registry::{BuildContext, BuiltEncoder, Proposal, Registry};
pub use tensor::{Element, Interpolation, Tensor, enable_grad, no_grad};
