//! Fusion operators by name: the built-in ones and those of other crates.

use crate::{
    Error, Result,
    operator::OperatorSpec,
    operators::{
        bilinear, bottleneck, co_attention, concat, cross_attention, film, gated, low_rank_fusion, mag, mctn, mfn,
        misa, mixture_of_experts, mmtm, mult, multiplicative, non_local, perceiver, tensor_fusion, transformer,
        weighted_sum,
    },
};
use std::sync::{PoisonError, RwLock};

const BUILT_IN: &[OperatorSpec] = &[
    concat::SPEC,
    weighted_sum::SPEC,
    transformer::SPEC,
    gated::SPEC,
    multiplicative::SPEC,
    tensor_fusion::SPEC,
    low_rank_fusion::SPEC,
    bilinear::MLB,
    bilinear::MFB,
    bilinear::MUTAN,
    film::SPEC,
    mmtm::SPEC,
    mag::SPEC,
    misa::SPEC,
    mixture_of_experts::SPEC,
    cross_attention::SPEC,
    co_attention::SPEC,
    mult::SPEC,
    bottleneck::SPEC,
    perceiver::SPEC,
    mfn::SPEC,
    non_local::SPEC,
    mctn::SPEC,
];

static REGISTERED: RwLock<Vec<OperatorSpec>> = RwLock::new(Vec::new());

/// All registered operators.
pub fn operators() -> Vec<OperatorSpec> {
    let registered = REGISTERED.read().unwrap_or_else(PoisonError::into_inner);
    BUILT_IN.iter().chain(registered.iter()).copied().collect()
}

/// Adds an operator for the whole process; configs then select it by its `kind`.
///
/// ```
/// use mm_fusion::{FusionOperator, ModalityInput, OperatorOutput, OperatorSpec, register_operator};
///
/// /// The first modality alone.
/// struct First;
///
/// impl FusionOperator for First {
///     fn forward(&self, inputs: &[ModalityInput], _train: bool) -> mm_fusion::Result<OperatorOutput> {
///         Ok(OperatorOutput::new(inputs[0].values.clone()))
///     }
/// }
///
/// register_operator(OperatorSpec {
///     kind: "first",
///     description: "the first modality alone",
///     takes_sequences: false,
///     build: |_| Ok(Box::new(First)),
/// })?;
/// # Ok::<(), mm_fusion::Error>(())
/// ```
///
/// # Errors
/// If an operator of this kind exists.
pub fn register_operator(spec: OperatorSpec) -> Result<()> {
    if operators().iter().any(|known| known.kind == spec.kind) {
        return Err(Error::config("fusion operator", spec.kind, "a kind that is not registered yet"));
    }
    REGISTERED.write().unwrap_or_else(PoisonError::into_inner).push(spec);
    Ok(())
}

/// The operator of this kind.
///
/// # Errors
/// For an unknown kind, with the nearest known one.
pub fn operator_spec(kind: &str) -> Result<OperatorSpec> {
    let specs = operators();
    let found = specs.iter().find(|spec| spec.kind == kind).copied();
    found.ok_or_else(|| mm_core::Error::unknown("fusion operator", kind, specs.iter().map(|s| s.kind)).into())
}
