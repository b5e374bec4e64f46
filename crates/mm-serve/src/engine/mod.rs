//! Models that compute: each is owned by one thread, and requests wait for it in a queue.

mod batch;
mod handle;
mod memory;
mod model;
mod pool;
mod queue;
mod reload;
mod worker;

pub(crate) use handle::{ModelHandle, ModelInfo};
pub(crate) use model::{Capability, LoadedModel};
pub(crate) use pool::{LoadContext, ModelPool};
pub(crate) use queue::EmbedJob;
