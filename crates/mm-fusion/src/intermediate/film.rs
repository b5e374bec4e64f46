//! Feature-wise linear modulation (Perez 2018): the other modalities scale and shift the main one's features, block after block.

use crate::{
    Result,
    early::concat_beside,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    Module, Scope,
    nn::{Linear, Norm, NormConfig},
};

const BLOCKS: usize = 2;

pub(crate) struct Film {
    first: Linear,
    /// For each block: scale and shift from the others, a layer, a normalisation without its own scale.
    blocks: Vec<(Linear, Linear, Norm)>,
    main: usize,
    width: i64,
}

impl Film {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>) -> Result<Self> {
        let others = sizes.parts.iter().enumerate().filter(|(n, _)| *n != sizes.main);
        let others = others.map(|(_, w)| w + 1).sum::<i64>();
        let width = sizes.width;
        let mut blocks = Vec::new();
        for number in 0..BLOCKS {
            let place = scope.pp("blocks").pp(number);
            blocks.push((
                Linear::new(&place.pp("film"), others.max(1), 2 * width, true)?,
                Linear::new(&place.pp("fc"), width, width, true)?,
                Norm::new(&place.pp("norm"), width, NormConfig::default())?,
            ));
        }
        Ok(Self {
            first: Linear::new(&scope.pp("fc"), sizes.parts[sizes.main], width, true)?,
            blocks,
            main: sizes.main,
            width,
        })
    }
}

impl Body for Film {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let others: Vec<Part> =
            parts.iter().enumerate().filter(|(n, _)| *n != self.main).map(|(_, p)| p.clone()).collect();
        let condition = if others.is_empty() { parts[0].flag()?.zeros_like()? } else { concat_beside(&others)? };
        let mut x = self.first.forward(&parts[self.main].values, train)?;
        for (film, layer, norm) in &self.blocks {
            let both = film.forward(&condition, train)?; // [rows, 2 · width]
            let (scale, shift) = (both.narrow(1, 0, self.width)?, both.narrow(1, self.width, self.width)?);
            let y = norm.forward(&layer.forward(&x, train)?, train)?;
            x = x.add(&y.mul(&scale.add_scalar(1.0)?)?.add(&shift)?.relu()?)?;
        }
        Ok(Combined::of(x))
    }
}
