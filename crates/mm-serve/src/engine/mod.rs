//! Models that compute: each is owned by one thread, and requests wait for it in a queue.

mod answers;
mod batch;
mod context;
mod handle;
mod job;
mod medium;
mod memory;
mod model;
mod pool;
mod queue;
mod reload;
mod room;
mod sample_cache;
mod texts;
mod transcripts;
mod worker;

pub(crate) use batch::{Budget, Cost};
pub(crate) use context::LoadContext;
pub(crate) use handle::{ModelHandle, ModelInfo};
pub(crate) use job::{EncodeJob, Output, Prompt, Question, Speech};
pub(crate) use medium::{Medium, RawMedium};
pub(crate) use model::{Capability, LoadedModel};
pub(crate) use pool::ModelPool;
pub(crate) use room::Room;
pub(crate) use texts::{Encoded, with_new_seed};
