//! All positions and the query, concatenated, through fully connected layers: a baseline that compares no pairs.
//!
//! The CNN+MLP baseline of *A simple neural network module for relational reasoning* (Santoro et al., 2017),
//! <https://arxiv.org/abs/1706.01427>.

use super::network::{NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, check_positive};
use crate::Result;
use mm_core::{Module, Tensor, nn::Linear};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "mlp", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MlpConfig {
    /// Number of context positions: the square of the side length that the image encoder returns.
    num_positions: i64,
    /// Number of hidden layers.
    #[serde(default = "default_num_layers")]
    num_layers: i64,
}

fn default_num_layers() -> i64 {
    2
}

struct Mlp {
    num_positions: i64,
    layers: Vec<Linear>,
    output: Linear,
    dropout: f64,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let MlpConfig { num_positions, num_layers } = context.options()?;
    check_positive("num_positions", num_positions)?;
    check_positive("num_layers", num_layers)?;
    let (scope, dim) = (&context.scope, context.hidden_dim);
    let input_dim = |n: i64| if n == 0 { (num_positions + 1) * dim } else { dim * 4 };
    let layers = (0..num_layers)
        .map(|n| Linear::new(&scope.pp("layers").pp(n), input_dim(n), dim * 4, true))
        .collect::<mm_core::Result<_>>()?;
    let output = Linear::new(&scope.pp("output"), dim * 4, dim, true)?;
    Ok(Box::new(Mlp { num_positions, layers, output, dropout: context.dropout }))
}

impl ReasoningNetwork for Mlp {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let found = input.context.size(1)?;
        if found != self.num_positions {
            let expected = format!("num_positions = {found}, the number of positions of the context");
            return Err(mm_core::Error::config("reasoning.network.num_positions", self.num_positions, expected));
        }
        // [batch, (positions + 1) · dim]
        let mut x = Tensor::cat(&[&input.context.flatten(1, 2)?, &input.query], 1)?;
        for layer in &self.layers {
            x = layer.forward(&x, input.train)?.relu()?.dropout(self.dropout, input.train)?;
        }
        Ok(NetworkOutput { answer: self.output.forward(&x, input.train)?, attention: Vec::new() })
    }
}
