//! Relation network: an MLP on every pair of positions together with the query, summed over all pairs.
//!
//! *A simple neural network module for relational reasoning* (Santoro et al., 2017),
//! <https://arxiv.org/abs/1706.01427>.

use super::network::{NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, check_positive};
use crate::Result;
use mm_core::{
    DType, Module, Tensor,
    nn::{Linear, Norm, NormConfig},
};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "relation_network", build, one_step_per_token: false };

/// How the pairs of positions are conditioned on the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Conditioning {
    /// Concatenated with both positions, as published.
    #[default]
    Concat,
    /// Also scales each channel of both positions, as FiLM does. The product binds an object that the query names to
    /// its position, which layers on a concatenation learn only after very many steps.
    Film,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RelationNetworkConfig {
    /// Layers of the network on pairs.
    num_layers: i64,
    /// How the pairs of positions are conditioned on the query.
    conditioning: Conditioning,
}

impl Default for RelationNetworkConfig {
    fn default() -> Self {
        Self { num_layers: 3, conditioning: Conditioning::default() }
    }
}

struct RelationNetwork {
    /// The first layer on pairs, split by input: each part runs before pairs are formed, on n instead of n² inputs.
    left: Linear,
    right: Linear,
    query: Linear,
    /// Scales of the left and of the right position's channels.
    scales: Option<[Linear; 2]>,
    layers: Vec<Linear>,
    output: [Linear; 2],
    norm: Norm,
    dropout: f64,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let RelationNetworkConfig { num_layers, conditioning } = context.options()?;
    check_positive("num_layers", num_layers)?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    let layer = |name: &str, bias: bool| Linear::new(&scope.pp(name), dim, dim, bias);
    Ok(Box::new(RelationNetwork {
        left: layer("left", false)?,
        right: layer("right", false)?,
        query: layer("query", true)?,
        scales: match conditioning {
            Conditioning::Concat => None,
            Conditioning::Film => Some([layer("scale_left", true)?, layer("scale_right", true)?]),
        },
        layers: (1..num_layers).map(|n| layer(&format!("layers.{n}"), true)).collect::<mm_core::Result<_>>()?,
        output: [layer("output1", true)?, layer("output2", true)?],
        norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
        dropout: context.dropout,
    }))
}

impl ReasoningNetwork for RelationNetwork {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let train = input.train;
        let mut left = self.left.forward(&input.context, train)?.unsqueeze(1)?;
        let mut right = self.right.forward(&input.context, train)?.unsqueeze(2)?;
        if let Some([scale_left, scale_right]) = &self.scales {
            let scale = |layer: &Linear, x: &Tensor| {
                let scale = layer.forward(&input.query, train)?.add_scalar(1.0)?;
                x.mul(&scale.unsqueeze(1)?.unsqueeze(1)?)
            };
            left = scale(scale_left, &left)?;
            right = scale(scale_right, &right)?;
        }
        let query = self.query.forward(&input.query, train)?.unsqueeze(1)?.unsqueeze(1)?;
        // The query is added to one position, not to the pairs, so that pairs are written once.
        let mut x = left.add(&query)?.add(&right)?.relu()?; // [batch, positions, positions, dim]
        for layer in &self.layers {
            x = layer.forward(&x, train)?.relu()?;
        }
        let mask = input.context_mask.to_dtype(x.dtype()?)?;
        let shape = x.shape();
        // The masked sum over one of the two positions as a matrix product, which copies no pairs.
        let summed = mask.unsqueeze(1)?.matmul(&x.reshape(&[shape[0], shape[1], shape[2] * shape[3]])?)?;
        let summed = summed.reshape(&[shape[0], shape[2], shape[3]])?.to_dtype(DType::F32)?;
        let summed = summed.mul(&input.context_mask.to_dtype(DType::F32)?.unsqueeze(2)?)?; // [batch, positions, dim]
        // Normalized, so that the scale does not depend on the number of positions.
        let total = self.norm.forward(&summed.sum_dim(&[1], false)?, train)?;
        let strength = summed.sum_dim(&[2], false)?;
        let weights = strength.div(&strength.sum_dim(&[1], true)?.clamp_min(1e-9)?)?;
        let hidden = self.output[0].forward(&total, train)?.relu()?.dropout(self.dropout, train)?;
        Ok(NetworkOutput { answer: self.output[1].forward(&hidden, train)?, attention: vec![weights] })
    }
}
