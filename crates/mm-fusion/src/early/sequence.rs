//! One long sequence of all modalities' positions, each with the embedding of its modality, through a transformer (as VisualBERT, Li 2019).

use crate::{
    Result,
    inputs::Part,
    intermediate::{encoder, with_positions},
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    DType, Init, Scope, Tensor,
    nn::{ForwardArgs, Mask, Transformer},
};

pub(crate) struct Sequence {
    transformer: Transformer,
    kinds: Tensor,
    class: Tensor,
    pooled: bool,
}

impl Sequence {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, layers: i64, heads: i64, pooled: bool) -> Result<Self> {
        let width = sizes.width;
        Ok(Self {
            transformer: encoder(&scope.pp("encoder"), width, layers, heads, 0.1)?,
            kinds: scope.param("modality_embedding", &[sizes.parts.len() as i64, width], Init::Normal(0.02))?,
            class: scope.param("class_token", &[width], Init::Normal(0.02))?,
            pooled,
        })
    }
}

impl Body for Sequence {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let rows = parts[0].values.size(0)?;
        let width = parts[0].values.size(2)?;
        let device = parts[0].values.device();
        let mut all = vec![self.class.reshape(&[1, 1, width])?.expand(&[rows, 1, width])?];
        let mut masks = vec![Tensor::ones(&[rows, 1], DType::Bool, device)?];
        for (number, part) in parts.iter().enumerate() {
            all.push(with_positions(&part.values)?.add(&self.kinds.select(0, number as i64)?)?);
            masks.push(part.positions()?);
        }
        let x = Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?; // [rows, 1 + lengths, width]
        let mask = Mask::Padding(Tensor::cat(&masks.iter().collect::<Vec<_>>(), 1)?);
        let x = self.transformer.forward(&x, ForwardArgs { mask: Some(&mask), train, ..ForwardArgs::default() })?;
        if self.pooled {
            return Ok(Combined::of(x.select(1, 0)?));
        }
        let length = parts[0].values.size(1)?;
        Ok(Combined { mask: parts[0].mask.clone(), ..Combined::of(x.narrow(1, 1, length)?) })
    }
}
