#![doc = include_str!("../README.md")]

#[cfg(feature = "c10d")]
mod backend;
#[cfg(not(feature = "c10d"))]
#[path = "backend_disabled.rs"]
mod backend;
mod current;
mod env;
mod error;
#[cfg(feature = "c10d")]
mod ffi;
mod gather;
mod gpu;
mod group;
mod local;
mod monitor;
mod nccl;
mod profiler;
mod reducer;

pub use current::{current, with_group};
pub use env::Environment;
pub use error::{Error, Result};
pub use gather::GatheredRows;
pub use group::{Group, ReduceOp};
pub use local::{spawn_local, spawn_local_with};
pub use profiler::Profiler;
pub use reducer::GradientReducer;
