//! Attention bottlenecks (MBT, Nagrani 2021): each modality has its own transformer, and all that passes between them goes through a few
//! tokens that they share.

use crate::{
    Error, Result,
    inputs::Part,
    intermediate::{block, one_width, with_positions},
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    DType, Init, Module, Scope, Tensor,
    nn::{Block, ForwardArgs, Linear, Mask},
};

pub(crate) struct Bottleneck {
    /// For each layer, a block for each modality.
    layers: Vec<Vec<Block>>,
    class: Tensor,
    shared_tokens: Tensor,
    last: Linear,
}

impl Bottleneck {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, layers: i64, heads: i64, tokens: i64) -> Result<Self> {
        one_width(sizes, "bottleneck")?;
        if layers < 1 {
            return Err(Error::config("fusion.operator.layers", layers, "at least 1"));
        }
        let (count, width) = (sizes.parts.len() as i64, sizes.width);
        let config = block(width, heads, 0.1, false);
        let mut all = Vec::new();
        for layer in 0..layers {
            let own = (0..count).map(|n| Block::new(&scope.pp("layers").pp(layer).pp(n), &config));
            all.push(own.collect::<mm_core::Result<Vec<_>>>()?);
        }
        Ok(Self {
            layers: all,
            class: scope.param("class_tokens", &[count, width], Init::Normal(0.02))?,
            shared_tokens: scope.param("bottleneck", &[tokens, width], Init::Normal(0.02))?,
            last: Linear::new(&scope.pp("out_proj"), width, width, true)?,
        })
    }
}

impl Body for Bottleneck {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let (rows, width) = (parts[0].values.size(0)?, parts[0].values.size(2)?);
        let tokens = self.shared_tokens.size(0)?;
        let mut shared = self.shared_tokens.unsqueeze(0)?.expand(&[rows, tokens, width])?;
        let (mut own, mut masks) = (Vec::new(), Vec::new());
        for (number, part) in parts.iter().enumerate() {
            let class = self.class.select(0, number as i64)?.reshape(&[1, 1, width])?.expand(&[rows, 1, width])?;
            own.push(Tensor::cat(&[&class, &with_positions(&part.values)?], 1)?); // [rows, 1 + length, width]
            let here = part.flag()?.gt_scalar(0.5)?;
            let always = Tensor::ones(&[rows, tokens], DType::Bool, shared.device())?;
            masks.push(Mask::Padding(Tensor::cat(&[&here, &part.positions()?, &always], 1)?));
        }
        let flags = parts.iter().map(Part::flag).collect::<Result<Vec<_>>>()?;
        let count = Tensor::cat(&flags.iter().collect::<Vec<_>>(), 1)?.sum_dim(&[1], true)?; // [rows, 1]
        let divisor = count.clamp_min(1.0)?.unsqueeze(2)?;
        for layer in &self.layers {
            let mut sum: Option<Tensor> = None;
            for ((x, block), (mask, flag)) in own.iter_mut().zip(layer).zip(masks.iter().zip(&flags)) {
                let length = x.size(1)?;
                let mut pass = ForwardArgs { mask: Some(mask), train, ..ForwardArgs::default() };
                let y = block.forward(&Tensor::cat(&[x, &shared], 1)?, &mut pass, None)?;
                *x = y.narrow(1, 0, length)?;
                let said = y.narrow(1, length, tokens)?.mul(&flag.unsqueeze(2)?)?;
                sum = Some(match sum {
                    Some(sum) => sum.add(&said)?,
                    None => said,
                });
            }
            if let Some(sum) = sum {
                shared = sum.div(&divisor)?;
            }
        }
        let mut mixed = own[0].select(1, 0)?.zeros_like()?;
        for (x, flag) in own.iter().zip(&flags) {
            mixed = mixed.add(&x.select(1, 0)?.mul(flag)?)?;
        }
        Ok(Combined::of(self.last.forward(&mixed.div(&count.clamp_min(1.0)?)?, train)?))
    }
}
