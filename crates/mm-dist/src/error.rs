//! The crate's error type.

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a process group.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable of the environment cannot be used.
    #[error("{name}: found {found}, expected {expected}")]
    Environment {
        /// The variable.
        name: &'static str,
        /// What was found.
        found: String,
        /// What was expected, and what to do.
        expected: String,
    },
    /// The processes did not find each other.
    #[error("rank {rank} of {world_size} could not join the process group at {address}: {reason}")]
    Join {
        /// This process.
        rank: usize,
        /// Number of processes.
        world_size: usize,
        /// Where rank 0 listens.
        address: String,
        /// Why, and what to do.
        reason: String,
    },
    /// Another thread of this process has a group.
    #[error(
        "another thread of this process is in a process group, and one thread alone can be; start a process for each rank"
    )]
    Thread,
    /// Another process ended, hangs, or cannot be reached.
    #[error("rank {rank}: {operation} failed: {peers} ({reason})")]
    Peer {
        /// This process.
        rank: usize,
        /// What was being done together.
        operation: &'static str,
        /// The processes that are to blame, as far as can be told.
        peers: String,
        /// The message of the transport.
        reason: String,
    },
    /// Another process ended with an error, and said so ([`Group::report_failure`](crate::Group::report_failure)).
    #[error("rank {rank} ends with rank {peer}, which failed: {reason}")]
    Ended {
        /// This process.
        rank: usize,
        /// The process that failed.
        peer: usize,
        /// Its error.
        reason: String,
    },
    /// The processes disagree about something that has to be equal.
    #[error(
        "{what} differs between the processes: rank 0 has {expected}, rank {rank} has {found}; start all with the same"
    )]
    Disagreement {
        /// What has to be equal.
        what: String,
        /// The first rank that differs.
        rank: usize,
        /// The value of that rank.
        found: String,
        /// The value of rank 0.
        expected: String,
    },
    /// Tensors of the processes do not fit together.
    #[error("{operation}: rank {rank} has rows of {found}, expected {expected} as of the others")]
    Shape {
        /// The operation.
        operation: &'static str,
        /// The rank.
        rank: usize,
        /// Its shape and dtype.
        found: String,
        /// Those of the other ranks.
        expected: String,
    },
    /// The library with NCCL, or a GPU, cannot be used.
    #[error("NCCL: found {found}, expected {expected}")]
    Nccl {
        /// What was found.
        found: String,
        /// What was expected, and what to do.
        expected: String,
    },
    /// Another process cannot use its GPU, so none trains.
    #[error("rank {rank} cannot use its GPU: {reason}")]
    Gpu {
        /// That process.
        rank: usize,
        /// Its error.
        reason: String,
    },
    /// What a process sent cannot be read.
    #[error("a message of rank {rank} cannot be read: {source}")]
    Message {
        /// The sender.
        rank: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// The profiler cannot record, or its trace cannot be written.
    #[error("the profiler: {0}")]
    Profiler(String),
    /// An error of mm-core.
    #[error(transparent)]
    Core(#[from] mm_core::Error),
}
