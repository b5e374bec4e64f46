//! The built-in operators, one file each, and layers that several of them use.

pub(crate) mod bilinear;
pub(crate) mod bottleneck;
pub(crate) mod co_attention;
pub(crate) mod concat;
pub(crate) mod cross_attention;
pub(crate) mod film;
pub(crate) mod gated;
mod layers;
pub(crate) mod low_rank_fusion;
pub(crate) mod mag;
pub(crate) mod mctn;
pub(crate) mod mfn;
pub(crate) mod misa;
pub(crate) mod mixture_of_experts;
pub(crate) mod mmtm;
pub(crate) mod mult;
pub(crate) mod multiplicative;
pub(crate) mod non_local;
pub(crate) mod perceiver;
pub(crate) mod tensor_fusion;
pub(crate) mod transformer;
pub(crate) mod weighted_sum;
