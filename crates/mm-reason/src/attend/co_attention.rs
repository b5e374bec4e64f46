//! Deep modular co-attention (MCAN, Yu 2019): blocks of self-attention on the words; on the places blocks of self-attention and attention to
//! the finished words; each side becomes one vector by learned weights, and both are summed. The norms stand before each part and not after
//! it as in the paper: after it, little is learned at the rates that the other networks here like (a test).

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{
    DType, Module, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Linear, Mask, MlpConfig, Norm, NormConfig, Transformer,
        TransformerConfig,
    },
};

/// Blocks that normalise before each part, of this width.
pub(super) fn block(width: i64, heads: i64, dropout: f64, cross: bool) -> BlockConfig {
    let attention = AttentionConfig { dropout, ..AttentionConfig::new(width, heads) };
    BlockConfig {
        cross: cross.then(|| attention.clone()),
        dropout,
        norm_first: true,
        ..BlockConfig::new(attention, MlpConfig::new(4 * width, Activation::Gelu))
    }
}

pub(super) struct CoAttention {
    words: Transformer,
    places: Transformer,
    reduce: [[Linear; 2]; 2],
    output: [Linear; 2],
    norm: Norm,
}

impl CoAttention {
    pub(super) fn new(scope: &Scope<'_>, width: i64, [layers, heads]: [i64; 2], dropout: f64) -> Result<Self> {
        at_least_one("layers", layers)?;
        let stack = |name: &str, cross: bool| {
            let block = block(width, heads, dropout, cross);
            Transformer::new(&scope.pp(name), &TransformerConfig { layers, block, final_norm: true })
        };
        let reduce = |name: &str| {
            let place = scope.pp(name);
            Ok::<_, crate::Error>([
                Linear::new(&place.pp("hidden"), width, width, true)?,
                Linear::new(&place.pp("score"), width, 1, true)?,
            ])
        };
        let output = |name: &str| Linear::new(&scope.pp(name), width, width, true);
        Ok(Self {
            words: stack("words", false)?,
            places: stack("places", true)?,
            reduce: [reduce("reduce_words")?, reduce("reduce_places")?],
            output: [output("output_words")?, output("output_places")?],
            norm: Norm::new(&scope.pp("norm"), width, NormConfig::default())?,
        })
    }
}

impl Body for CoAttention {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let (words_mask, places_mask) = (Mask::Padding(s.words_mask.clone()), Mask::Padding(s.places_mask.clone()));
        let words = self.words.forward(&s.words, Some(&words_mask), None, None, s.train)?;
        let context = Some((&words, Some(&words_mask)));
        let places = self.places.forward(&s.places, Some(&places_mask), context, None, s.train)?;
        let reduce = |x: &Tensor, mask: &Tensor, [hidden, score]: &[Linear; 2]| {
            let scores = score.forward(&hidden.forward(x, s.train)?.relu()?, s.train)?.squeeze(2)?;
            let weights = scores.masked_fill(&mask.logical_not()?, DType::F32.lowest())?.softmax(-1)?;
            Ok::<_, mm_core::Error>((Scene::gather(&weights, x)?, weights))
        };
        let (asked, _) = reduce(&words, &s.words_mask, &self.reduce[0])?;
        let (seen, weights) = reduce(&places, &s.places_mask, &self.reduce[1])?;
        let sum = self.output[0].forward(&asked, s.train)?.add(&self.output[1].forward(&seen, s.train)?)?;
        Ok((self.norm.forward(&sum, s.train)?, vec![weights]))
    }
}
