//! Reasoning networks: one modality (the query, usually a question) attends to the others (the context, usually an
//! image).
//!
//! Every network is one file that exports a [`NetworkSpec`]; [`build`] looks the `kind` of a [`NetworkConfig`] up among
//! the built-in specs and those that other crates added with [`register_network`]. All networks run on the same inputs:
//! query tokens and context positions projected to one hidden dimension ([`ReasonerInput`]).

mod ban;
mod bottom_up_top_down;
mod config;
mod film;
mod mac;
mod mcan;
mod mcb;
mod mlp;
mod module_network;
mod mutan;
mod network;
mod reasoner;
mod registry;
mod relation_network;
mod san;
mod single_stream;

pub use config::{NetworkConfig, ReasoningConfig};
pub use network::{NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend};
pub use reasoner::build;
pub use registry::{network_kinds, register_network};

#[cfg(test)]
mod tests;
