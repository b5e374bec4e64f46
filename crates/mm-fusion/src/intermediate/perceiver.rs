//! Latents that look at everything (Perceiver, Jaegle 2021): a few learned vectors attend to all modalities' positions in turns with
//! attending to each other, so that the cost grows with the input's length and not with its square.

use crate::{
    Error, Result,
    inputs::Part,
    intermediate::{any, block, one_width, with_positions},
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    Init, Module, Scope, Tensor,
    nn::{Attention, AttentionArgs, AttentionConfig, Block, ForwardArgs, Linear, Mask, Norm, NormConfig},
};

pub(crate) struct Perceiver {
    latents: Tensor,
    kinds: Tensor,
    rounds: Vec<(Norm, Attention, Block)>,
    context: Norm,
    last: Linear,
}

impl Perceiver {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, latents: i64, layers: i64, heads: i64) -> Result<Self> {
        one_width(sizes, "perceiver")?;
        if layers < 1 {
            return Err(Error::config("fusion.operator.layers", layers, "at least 1"));
        }
        let (count, width) = (sizes.parts.len() as i64, sizes.width);
        let mut rounds = Vec::new();
        for layer in 0..layers {
            let place = scope.pp("layers").pp(layer);
            rounds.push((
                Norm::new(&place.pp("norm"), width, NormConfig::default())?,
                Attention::new(&place.pp("cross_attn"), &AttentionConfig::new(width, heads))?,
                Block::new(&place.pp("block"), &block(width, heads, 0.1, false))?,
            ));
        }
        Ok(Self {
            latents: scope.param("latents", &[latents, width], Init::Normal(0.02))?,
            kinds: scope.param("modality_embedding", &[count, width], Init::Normal(0.02))?,
            rounds,
            context: Norm::new(&scope.pp("context_norm"), width, NormConfig::default())?,
            last: Linear::new(&scope.pp("out_proj"), width, width, true)?,
        })
    }
}

impl Body for Perceiver {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let (mut all, mut masks) = (Vec::new(), Vec::new());
        for (number, part) in parts.iter().enumerate() {
            all.push(with_positions(&part.values)?.add(&self.kinds.select(0, number as i64)?)?);
            masks.push(part.positions()?);
        }
        let context = self.context.forward(&Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?, train)?;
        let mask = Mask::Padding(Tensor::cat(&masks.iter().collect::<Vec<_>>(), 1)?);
        let there = any(&parts.iter().collect::<Vec<_>>())?.unsqueeze(2)?; // [rows, 1, 1]
        let (rows, shape) = (context.size(0)?, self.latents.shape());
        let mut x = self.latents.unsqueeze(0)?.expand(&[rows, shape[0], shape[1]])?;
        for (norm, attention, block) in &self.rounds {
            let attend =
                AttentionArgs { context: Some(&context), mask: Some(&mask), train, ..AttentionArgs::default() };
            x = x.add(&attention.forward(&norm.forward(&x, train)?, attend)?.values.mul(&there)?)?;
            x = block.forward(&x, &mut ForwardArgs { train, ..ForwardArgs::default() }, None)?;
        }
        Ok(Combined::of(self.last.forward(&x.mean_dim(&[1], false)?, train)?))
    }
}
