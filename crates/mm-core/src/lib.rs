//! The foundation of the mm crates.
//!
//! [`Tensor`] wraps libtorch's tensor with every operation fallible; [`Features`] is what encoders compute and what
//! alignment, fusion and reasoning take; [`nn`] holds the workspace's one attention and one transformer block;
//! [`Params`] and [`Checkpoint`] hold weights under the names that the field's checkpoints use. Only this crate depends
//! on tch.
//!
//! ```
//! use mm_core::{Device, Tensor};
//! # fn main() -> mm_core::Result<()> {
//! let a = Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0])?.reshape(&[2, 2])?;
//! let b = (&a + &a)?;
//! assert_eq!(a.matmul(&b)?.to_vec::<f32>()?, [14.0, 20.0, 30.0, 44.0]);
//! // A wrong shape is an error that names what was found, never a panic.
//! assert!(a.matmul(&Tensor::zeros(&[3, 2], mm_core::DType::F32, Device::Cpu)?).unwrap_err().to_string().contains("[3, 2]"));
//! # Ok(())
//! # }
//! ```

mod activation;
mod adam;
mod autocast;
pub mod cells;
pub mod checkpoint;
pub mod config;
mod device;
mod dtype;
mod error;
mod features;
mod lora;
mod modality;
mod nf4;
pub mod nn;
mod onednn;
mod params;
mod registry;
mod runtime;
pub mod seed;
mod symbols;
mod tensor;
mod traits;

pub use adam::AdamStep;
pub use autocast::autocast;
pub use checkpoint::Checkpoint;
pub use device::Device;
pub use dtype::DType;
pub use error::{Error, Result};
pub use features::{FeatureSet, Features, Input, Pooling};
pub use lora::{ADAPTER_CONFIG, Adapter, LoraConfig, Quantization};
pub use modality::Modality;
pub use params::{Init, Params, Role, Scope, TensorRef};
pub use registry::{BuildContext, BuiltEncoder, EncoderFactory, Proposal, Registry};
pub use runtime::{available_threads, cache_dir, limit_spinning, num_threads, retain_freed_memory, set_num_threads};
pub use tensor::{Element, Interpolation, SendTensor, Tensor, enable_grad, no_grad, parallel_tensors};
pub use traits::{
    AttentionStep, EncodedFile, Encoder, GenerativeDecoder, InputSet, LossOutput, Module, ProcessContext, Processor,
    Reasoner, ReasonerOutput, RepresentationLearner, Source, TrainingObjective,
};
