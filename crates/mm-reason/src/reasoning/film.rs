//! Feature-wise linear modulation: the query scales and shifts each channel of residual convolutions over the grid.
//!
//! *FiLM: Visual Reasoning with a General Conditioning Layer* (Perez et al., 2018), <https://arxiv.org/abs/1709.07871>.

use super::network::{NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, check_positive};
use crate::Result;
use mm_core::{
    DType, Module, Tensor,
    nn::{BatchNorm, Conv2d, ConvConfig, Linear},
};
use serde::Deserialize;

pub(super) const SPEC: NetworkSpec = NetworkSpec { kind: "film", build, one_step_per_token: false };

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilmConfig {
    /// Number of modulated residual blocks.
    num_blocks: i64,
}

impl Default for FilmConfig {
    fn default() -> Self {
        Self { num_blocks: 3 }
    }
}

struct FilmBlock {
    conv1: Conv2d,
    conv2: Conv2d,
    norm: BatchNorm,
    modulation: Linear,
}

struct Film {
    blocks: Vec<FilmBlock>,
    output: Linear,
    dim: i64,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let FilmConfig { num_blocks } = context.options()?;
    check_positive("num_blocks", num_blocks)?;
    let dim = context.hidden_dim;
    let block = |n: i64| {
        let scope = context.scope.pp("blocks").pp(n);
        Ok(FilmBlock {
            conv1: Conv2d::new(&scope.pp("conv1"), ConvConfig::same(dim, dim, 1))?,
            conv2: Conv2d::new(&scope.pp("conv2"), ConvConfig::same(dim, dim, 3))?,
            norm: BatchNorm::new(&scope.pp("norm"), dim, 1e-5, 0.1)?,
            modulation: Linear::new(&scope.pp("modulation"), dim, 2 * dim, true)?,
        })
    };
    Ok(Box::new(Film {
        blocks: (0..num_blocks).map(block).collect::<Result<_>>()?,
        output: Linear::new(&context.scope.pp("output"), 2 * dim, dim, true)?,
        dim,
    }))
}

impl ReasoningNetwork for Film {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let train = input.train;
        let (batch, size) = (input.context.size(0)?, input.grid_size()?);
        let mut x = input.context.transpose(1, 2)?.reshape(&[batch, self.dim, size, size])?;
        for block in &self.blocks {
            let modulation = block.modulation.forward(&input.query, train)?.reshape(&[batch, 2 * self.dim, 1, 1])?;
            let gamma = modulation.narrow(1, 0, self.dim)?.add_scalar(1.0)?;
            let beta = modulation.narrow(1, self.dim, self.dim)?;
            let residual = block.conv1.forward(&x, train)?.relu()?;
            let normed = block.norm.forward(&block.conv2.forward(&residual, train)?, train)?;
            x = residual.add(&normed.mul(&gamma)?.add(&beta)?.relu()?)?;
        }
        let flat = x.flatten(2, 3)?; // [batch, dim, positions]
        let flat = flat.mul(&input.context_mask.unsqueeze(1)?.to_dtype(DType::F32)?)?;
        let pooled = Tensor::cat(&[&flat.amax(2, false)?, &flat.mean_dim(&[2], false)?], 1)?;
        // FiLM has no attention weights; the L1 norm of each position's activations replaces them (the paper's figure
        // 4).
        let strength = flat.abs()?.sum_dim(&[1], false)?;
        let weights = strength.div(&strength.sum_dim(&[1], true)?.clamp_min(1e-9)?)?;
        Ok(NetworkOutput { answer: self.output.forward(&pooled, train)?, attention: vec![weights] })
    }
}
