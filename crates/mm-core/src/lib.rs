#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! [`Tensor`] wraps libtorch's tensor with every operation fallible; [`Features`] is what encoders compute and what
//! alignment, fusion and reasoning take; [`nn`] holds the workspace's one attention and one transformer block;
//! [`Params`] and [`Checkpoint`] hold weights under the names that the field's checkpoints use. Only this crate depends
//! on tch.

mod activation;
mod adam;
mod autocast;
pub mod cells;
pub mod checkpoint;
#[cfg(feature = "config")]
pub mod config;
mod device;
pub mod distributed;
mod dtype;
mod error;
mod features;
mod lora;
mod modality;
#[cfg(feature = "nf4")]
mod nf4;
#[cfg(not(feature = "nf4"))]
#[path = "nf4_disabled.rs"]
mod nf4;
pub mod nn;
mod onednn;
mod options;
mod params;
pub mod prelude;
#[cfg(feature = "config")]
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
pub use error::{Cause, Error, Result, describe_error};
pub use features::{FeatureSet, Features, Input, Pooling};
pub use lora::{ADAPTER_CONFIG, Adapter, LoraConfig, Quantization};
pub use modality::Modality;
pub use options::parse_options;
pub use params::{Init, Params, Role, Scope, TensorRef};
#[cfg(feature = "config")]
pub use registry::{BuildContext, BuiltEncoder, EncoderFactory, Proposal, Registry};
pub use runtime::{
    available_threads, cache_dir, exit_at_once, handle_signals_elsewhere, limit_spinning, num_threads,
    retain_freed_memory, set_num_threads,
};
pub use tensor::{
    BatchNormArgs, ConvArgs, DotProductArgs, Element, Interpolation, NdArray, SendTensor, Tensor, enable_grad, no_grad,
    parallel_tensors,
};
pub use traits::{
    AttentionStep, ChunkedLoss, DecodedAudio, DecodedImage, EncodedFile, Encoder, GenerativeDecoder, InputSet,
    LossOutput, Module, ProcessContext, Processor, Reasoner, ReasonerOutput, RepresentationLearner, Source,
    TrainingObjective, read_part,
};
