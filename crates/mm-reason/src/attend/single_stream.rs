//! Words and places in one transformer (as ViLT, Kim 2021), read at a token of its own.

use super::{Body, Scene, Thought, at_least_one, co_attention::block};
use crate::Result;
use mm_core::{
    DType, Init, Scope, Tensor,
    nn::{Mask, Pass, Transformer, TransformerConfig},
};

pub(super) struct SingleStream {
    class: Tensor,
    kinds: Tensor,
    blocks: Transformer,
}

impl SingleStream {
    pub(super) fn new(scope: &Scope<'_>, width: i64, [layers, heads]: [i64; 2], dropout: f64) -> Result<Self> {
        at_least_one("layers", layers)?;
        let block = block(width, heads, dropout, false);
        Ok(Self {
            class: scope.param("class", &[1, 1, width], Init::Normal(0.02))?,
            kinds: scope.param("kinds", &[2, width], Init::Normal(0.02))?,
            blocks: Transformer::new(scope, &TransformerConfig { layers, block, final_norm: true })?,
        })
    }
}

impl Body for SingleStream {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let rows = s.places.size(0)?;
        let class = self.class.expand(&[rows, -1, -1])?;
        let words = s.words.add(&self.kinds.select(0, 0)?)?;
        let places = s.places.add(&self.kinds.select(0, 1)?)?;
        let x = Tensor::cat(&[&class, &words, &places], 1)?;
        let first = Tensor::ones(&[rows, 1], DType::Bool, x.device())?;
        let mask = Mask::Padding(Tensor::cat(&[&first, &s.words_mask, &s.places_mask], 1)?);
        let mut weights = Vec::new();
        // The weights are only made where someone may want to see them.
        let wanted = (!s.train).then_some(&mut weights);
        let pass = Pass { mask: Some(&mask), weights: wanted, train: s.train, ..Pass::default() };
        let out = self.blocks.run(&x, pass)?;
        let (from, count) = (1 + words.size(1)?, places.size(1)?);
        let mut looked = Vec::new();
        for block in weights.iter().filter_map(|w| w.own.as_ref()) {
            looked.push(block.mean_dims(&[1], false)?.select(1, 0)?.narrow(1, from, count)?);
        }
        Ok((out.select(1, 0)?, looked))
    }
}
