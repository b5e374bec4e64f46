//! What a user asks for. So far: cross-modal [`retrieval`] and its [`report`], and the [`embedding`] of whole data sets.

pub mod embedding;
mod error;
pub mod metrics;
pub mod report;
pub mod retrieval;

pub use error::{Error, Result};

/// Every encoder that this build knows, by the `kind` that a config names.
pub fn registry() -> mm_core::Registry {
    let mut registry = mm_core::Registry::new();
    mm_repr::register(&mut registry);
    registry
}
