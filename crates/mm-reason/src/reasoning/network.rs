//! The interface of a reasoning network: what it receives, what it returns and how it is described to the registry.

use crate::{Error, Result};
use mm_core::{
    DType, Scope, Tensor,
    nn::{Activation, AttentionConfig, BlockConfig, MlpConfig},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Inputs of a network, all projected to its hidden dimension.
#[derive(Debug)]
pub struct ReasonerInput {
    /// Tokens of the query, `[batch, tokens, dim]`.
    pub query_tokens: Tensor,
    /// Which tokens are valid, `[batch, tokens]` bool.
    pub query_mask: Tensor,
    /// The query as one vector, `[batch, dim]`.
    pub query: Tensor,
    /// Positions of all other modalities, concatenated, `[batch, positions, dim]`.
    pub context: Tensor,
    /// Which positions are valid, `[batch, positions]` bool.
    pub context_mask: Tensor,
    /// Whether the network is training.
    pub train: bool,
}

impl ReasonerInput {
    /// Softmax of scores of the context positions `[batch, positions]`; invalid positions get weight 0.
    pub fn masked_softmax(&self, scores: &Tensor) -> mm_core::Result<Tensor> {
        scores.masked_fill(&self.context_mask.logical_not()?, DType::F32.mask_value())?.softmax(-1)
    }

    /// Side length of the square grid that the context positions form.
    ///
    /// # Errors
    /// If their number is not a square.
    pub fn grid_size(&self) -> mm_core::Result<i64> {
        let count = self.context.size(1)?;
        let size = (count as f64).sqrt().round() as i64;
        if size * size == count {
            return Ok(size);
        }
        Err(mm_core::Error::config("reasoning.network", format!("{count} positions"), "a square grid for this network"))
    }
}

/// Weighted sum `[batch, dim]` of `values` `[batch, positions, dim]` under `weights` `[batch, positions]`.
pub fn attend(weights: &Tensor, values: &Tensor) -> mm_core::Result<Tensor> {
    weights.unsqueeze(1)?.matmul(values)?.squeeze(1)
}

/// Output of a network.
#[derive(Debug)]
pub struct NetworkOutput {
    /// Features of the answer, `[batch, dim]`.
    pub answer: Tensor,
    /// Attention over the context positions at each step, `[batch, positions]` each; empty for networks without
    /// attention.
    pub attention: Vec<Tensor>,
}

/// A network that answers a query about a context.
pub trait ReasoningNetwork {
    /// Computes the answer.
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput>;
}

/// Arguments from which a network is built.
pub struct NetworkContext<'a> {
    /// Where its parameters live.
    pub scope: Scope<'a>,
    /// Feature dimension of its inputs and of its answer.
    pub hidden_dim: i64,
    /// Dropout probability.
    pub dropout: f64,
    /// The own options, without `kind`.
    pub options: &'a Map<String, Value>,
}

impl NetworkContext<'_> {
    /// The options as the network's config struct.
    ///
    /// # Errors
    /// For an unknown key (with the nearest known one) or a value of the wrong type.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(mm_core::parse_options(self.options, "reasoning.network")?)
    }
}

/// Describes a network to the registry.
#[derive(Debug, Clone, Copy)]
pub struct NetworkSpec {
    /// Name in configs (`kind`), snake_case.
    pub kind: &'static str,
    /// Builds the network.
    pub build: fn(&NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>>,
    /// Whether the network takes one step for each token of the query, so that its query is a program.
    pub one_step_per_token: bool,
}

/// Checks that an option of the network is at least 1.
pub(super) fn check_positive(option: &str, found: i64) -> Result<()> {
    if found < 1 {
        return Err(Error::invalid_argument(format!("reasoning.network.{option}"), found, "at least 1"));
    }
    Ok(())
}

/// A pre-norm transformer block of this dimension, with an MLP of four times that dimension.
pub(super) fn pre_norm_block(dim: i64, heads: i64, dropout: f64, cross_attention: bool) -> BlockConfig {
    let attention = AttentionConfig { dropout, ..AttentionConfig::new(dim, heads) };
    BlockConfig {
        cross_attention: cross_attention.then(|| attention.clone()),
        dropout,
        ..BlockConfig::pre_norm(attention, MlpConfig::new(4 * dim, Activation::Gelu))
    }
}
