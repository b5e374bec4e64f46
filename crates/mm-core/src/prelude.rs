//! The items that most programs use: `use mm_core::prelude::*;`.
//!
//! [`Result`] is mm-core's own; programs that use several crates of mm name theirs or `Box<dyn std::error::Error>`.

pub use crate::{
    Checkpoint, DType, Device, Encoder, FeatureSet, Features, Input, Modality, Module, Params, Result, Scope, Source,
    Tensor, no_grad,
};
