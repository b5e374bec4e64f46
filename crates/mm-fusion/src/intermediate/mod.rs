//! Intermediate fusion: features of each modality, already made, act on each other.

mod adaptation;
mod attention;
mod bilinear;
mod bottleneck;
mod crossmodal;
mod excitation;
mod experts;
mod film;
mod gated;
mod invariant;
mod memory;
mod multiplicative;
mod perceiver;
mod tensor;
mod translation;

pub(crate) use adaptation::Adaptation;
pub(crate) use attention::{CoAttention, Cross, NonLocal};
pub(crate) use bilinear::{Bilinear, Pooling};
pub(crate) use bottleneck::Bottleneck;
pub(crate) use crossmodal::Mult;
pub(crate) use excitation::Excitation;
pub(crate) use experts::Experts;
pub(crate) use film::Film;
pub(crate) use gated::Gated;
pub(crate) use invariant::Invariant;
pub use invariant::central_moment_discrepancy;
pub(crate) use memory::Memory;
pub(crate) use multiplicative::Multiplicative;
pub(crate) use perceiver::Perceiver;
pub(crate) use tensor::{LowRank, TensorFusion};
pub(crate) use translation::Translation;

use crate::{Error, Result, inputs::Part, operator::Sizes};
use mm_core::{
    Scope, Tensor,
    nn::{Activation, AttentionConfig, BlockConfig, MlpConfig, Transformer, TransformerConfig, sinusoidal_positions},
};

/// Refuses modalities of different widths where an operator adds or stacks them.
pub(crate) fn one_width(sizes: &Sizes<'_>, what: &str) -> Result<()> {
    if sizes.parts.iter().any(|w| *w != sizes.parts[0]) {
        return Err(Error::config(what, format!("widths {:?}", sizes.parts), "one width (fusion.project = true)"));
    }
    Ok(())
}

/// A pre-norm transformer block of the usual sizes, with cross-attention to a context of the same width where wanted.
pub(crate) fn block(width: i64, heads: i64, dropout: f64, cross: bool) -> BlockConfig {
    let attention = AttentionConfig { dropout, ..AttentionConfig::new(width, heads) };
    BlockConfig {
        cross_attention: cross.then(|| attention.clone()),
        norm_first: true,
        dropout,
        ..BlockConfig::new(attention, MlpConfig::new(2 * width, Activation::Gelu))
    }
}

pub(crate) fn encoder(scope: &Scope<'_>, width: i64, layers: i64, heads: i64, dropout: f64) -> Result<Transformer> {
    if layers < 1 {
        return Err(Error::config("fusion.operator.layers", layers, "at least 1"));
    }
    let config = TransformerConfig { num_layers: layers, block: block(width, heads, dropout, false), final_norm: true };
    Ok(Transformer::new(scope, &config)?)
}

/// A sequence with sinusoidal positions added.
pub(crate) fn with_positions(x: &Tensor) -> Result<Tensor> {
    let (length, width) = (x.size(1)?, x.size(2)?);
    Ok(x.add(&sinusoidal_positions(length, width, true, x.device())?)?)
}

/// `[rows, 1]`: 1 where any of the parts is there.
pub(crate) fn any(parts: &[&Part]) -> Result<Tensor> {
    let all = parts.iter().map(|p| p.flag()).collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?.amax(1, true)?)
}
