//! Relation network (Santoro 2017): a network on every pair of places and the question, summed over pairs.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{
    DType, Module, Scope,
    nn::{Linear, Norm, NormConfig},
};

pub(super) struct Relation {
    /// The first layer's three parts: applied before pairs are made, which costs n and not n² products.
    first: [Linear; 3],
    layers: Vec<Linear>,
    output: [Linear; 2],
    norm: Norm,
    dropout: f64,
}

impl Relation {
    pub(super) fn new(scope: &Scope<'_>, width: i64, layers: i64, dropout: f64) -> Result<Self> {
        at_least_one("layers", layers)?;
        let layer = |name: String, bias: bool| Linear::new(&scope.pp(name), width, width, bias);
        Ok(Self {
            first: [layer("one".into(), false)?, layer("other".into(), false)?, layer("question".into(), true)?],
            layers: (1..layers).map(|n| layer(format!("layers.{n}"), true)).collect::<mm_core::Result<_>>()?,
            output: [layer("output1".into(), true)?, layer("output2".into(), true)?],
            norm: Norm::new(&scope.pp("norm"), width, NormConfig::default())?,
            dropout,
        })
    }
}

impl Body for Relation {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let one = self.first[0].forward(&s.places, s.train)?.unsqueeze(1)?;
        let other = self.first[1].forward(&s.places, s.train)?.unsqueeze(2)?;
        let asked = self.first[2].forward(&s.question, s.train)?.unsqueeze(1)?.unsqueeze(1)?;
        let mut x = one.add(&other)?.add(&asked)?.relu()?; // [rows, places, places, width]
        for layer in &self.layers {
            x = layer.forward(&x, s.train)?.relu()?;
        }
        let there = s.places_mask.to_dtype(DType::F32)?;
        let pairs = there.unsqueeze(1)?.mul(&there.unsqueeze(2)?)?.unsqueeze(3)?;
        let x = x.mul(&pairs)?;
        let per_place = x.sum_dims(&[1], false)?; // [rows, places, width]
        // A normalised sum: the number of places does not set its scale, as it would a plain sum's, nor make it small, as a mean's.
        let total = self.norm.forward(&per_place.sum_dims(&[1], false)?, s.train)?;
        let strength = per_place.sum_dims(&[2], false)?;
        let weights = strength.div(&strength.sum_dims(&[1], true)?.clamp_min(1e-9)?)?;
        let y = self.output[0].forward(&total, s.train)?.relu()?.dropout(self.dropout, s.train)?;
        Ok((self.output[1].forward(&y, s.train)?, vec![weights]))
    }
}
