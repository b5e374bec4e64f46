//! Arguments that several commands share, one group a file.

pub(crate) mod batch;
pub(crate) mod columns;
pub(crate) mod config;
pub(crate) mod dtype;
pub(crate) mod embedder;
pub(crate) mod files;
pub(crate) mod generation;
pub(crate) mod limit;
pub(crate) mod model;
pub(crate) mod output_path;
pub(crate) mod shards;
pub(crate) mod sources;
pub(crate) mod store;
