//! Files (shards) that any number of workers process, each on its own, into one folder.
//!
//! Workers know nothing of each other. A worker takes a shard that is neither done nor leased by another
//! ([`ShardWork`]), and waits at the end until the shards of others are done, so that those of a worker that was killed
//! are not lost. A shard's outputs are complete or absent, and its record is written last.

mod folder;
mod lease;
mod worker;

pub use folder::{ShardFolder, ShardRecord, name_shards, shard_name};
pub use lease::Lease;
pub use worker::{Shard, ShardOutcome, ShardWork, WorkerSummary, run_worker};
