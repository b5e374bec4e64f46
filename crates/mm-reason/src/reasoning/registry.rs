//! Reasoning networks by name: the built-in ones and those of other crates.

use super::{
    ban, bottom_up_top_down, film, mac, mcan, mcb, mlp, module_network, mutan, network::NetworkSpec, relation_network,
    san, single_stream,
};
use crate::{Error, Result};
use std::sync::{PoisonError, RwLock};

const BUILT_IN: &[NetworkSpec] = &[
    san::SPEC,
    bottom_up_top_down::SPEC,
    ban::SPEC,
    mcb::SPEC,
    mutan::SPEC,
    mcan::SPEC,
    film::SPEC,
    relation_network::SPEC,
    mac::SPEC,
    module_network::SPEC,
    mlp::SPEC,
    single_stream::SPEC,
];

static REGISTERED: RwLock<Vec<NetworkSpec>> = RwLock::new(Vec::new());

fn specs() -> Vec<NetworkSpec> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    BUILT_IN.iter().chain(registered.iter()).copied().collect()
}

/// Adds a network for the whole process; configs then select it by its `kind`.
///
/// # Errors
/// If a network of this kind exists.
///
/// # Examples
/// ```
/// use mm_reason::reasoning::{NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, register_network};
///
/// /// Answers with the mean of the context.
/// struct MeanPool;
///
/// impl ReasoningNetwork for MeanPool {
///     fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
///         Ok(NetworkOutput { answer: input.context.mean_dim(&[1], false)?, attention: Vec::new() })
///     }
/// }
///
/// register_network(NetworkSpec { kind: "mean_pool", build: |_| Ok(Box::new(MeanPool)), one_step_per_token: false })?;
/// # Ok::<(), mm_reason::Error>(())
/// ```
pub fn register_network(spec: NetworkSpec) -> Result<()> {
    if specs().iter().any(|known| known.kind == spec.kind) {
        return Err(Error::invalid_argument("reasoning network", spec.kind, "a kind that is not registered yet"));
    }
    REGISTERED.write().unwrap_or_else(PoisonError::into_inner).push(spec);
    Ok(())
}

/// Names of all registered networks.
pub fn network_kinds() -> Vec<&'static str> {
    specs().iter().map(|spec| spec.kind).collect()
}

/// The network of this kind.
///
/// # Errors
/// For an unknown kind, with the nearest known one.
pub(super) fn network_spec(kind: &str) -> Result<NetworkSpec> {
    let specs = specs();
    let found = specs.iter().find(|spec| spec.kind == kind).copied();
    found.ok_or_else(|| mm_core::Error::unknown("reasoning network", kind, specs.iter().map(|s| s.kind)).into())
}
