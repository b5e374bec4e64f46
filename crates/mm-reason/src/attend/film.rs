//! Feature-wise linear modulation (FiLM, Perez 2018): the question scales and shifts each channel of residual convolutions over the grid.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{
    DType, Module, Scope, Tensor,
    nn::{BatchNorm, Conv2d, ConvConfig, Linear},
};

struct Modulated {
    first: Conv2d,
    second: Conv2d,
    norm: BatchNorm,
    modulation: Linear,
}

pub(super) struct Film {
    blocks: Vec<Modulated>,
    output: Linear,
    width: i64,
}

impl Film {
    pub(super) fn new(scope: &Scope<'_>, width: i64, blocks: i64) -> Result<Self> {
        at_least_one("blocks", blocks)?;
        let block = |n: i64| {
            let place = scope.pp("blocks").pp(n);
            Ok(Modulated {
                first: Conv2d::new(&place.pp("conv1"), ConvConfig::same(width, width, 1))?,
                second: Conv2d::new(&place.pp("conv2"), ConvConfig::same(width, width, 3))?,
                norm: BatchNorm::new(&place.pp("norm"), width, 1e-5, 0.1)?,
                modulation: Linear::new(&place.pp("modulation"), width, 2 * width, true)?,
            })
        };
        Ok(Self {
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            output: Linear::new(&scope.pp("output"), 2 * width, width, true)?,
            width,
        })
    }
}

impl Body for Film {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let (rows, side) = (s.places.size(0)?, s.side()?);
        let grid = [rows, self.width, side, side];
        let mut x = s.places.transpose(1, 2)?.reshape(&grid)?;
        for block in &self.blocks {
            let modulation = block.modulation.forward(&s.question, s.train)?.reshape(&[rows, 2 * self.width, 1, 1])?;
            let scale = modulation.narrow(1, 0, self.width)?.add_scalar(1.0)?;
            let shift = modulation.narrow(1, self.width, self.width)?;
            let y = block.first.forward(&x, s.train)?.relu()?;
            let z = block.norm.forward(&block.second.forward(&y, s.train)?, s.train)?;
            x = y.add(&z.mul(&scale)?.add(&shift)?.relu()?)?;
        }
        let flat = x.flatten(2, 3)?; // [rows, width, places]
        let there = s.places_mask.unsqueeze(1)?.to_dtype(DType::F32)?;
        let flat = flat.mul(&there)?;
        let largest = flat.max_dim(2, false)?;
        let pooled = Tensor::cat(&[&largest, &flat.mean_dims(&[2], false)?], 1)?;
        // It has no weights of attention; how strongly each place speaks stands for them (the paper's figure 4).
        let strength = flat.abs()?.sum_dims(&[1], false)?;
        let weights = strength.div(&strength.sum_dims(&[1], true)?.clamp_min(1e-9)?)?;
        Ok((self.output.forward(&pooled, s.train)?, vec![weights]))
    }
}
