//! Relation network (Santoro 2017): a network on every pair of places and the question, summed over pairs.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{
    DType, Module, Scope,
    nn::{Linear, Norm, NormConfig},
};
use serde::{Deserialize, Serialize};

/// How the question enters the network on pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Beside the two places, as published.
    #[default]
    Concatenated,
    /// It also scales each channel of both places (as in FiLM, Perez 2018): what binds a thing that the question names to where that thing is
    /// is a product then, which layers over a concatenation find only after very many steps.
    Modulated,
}

pub(super) struct Relation {
    /// The first layer's three parts: applied before pairs are made, which costs n and not n² products.
    first: [Linear; 3],
    /// What the question scales the channels of one and of the other place by, when it does.
    scales: Option<[Linear; 2]>,
    layers: Vec<Linear>,
    output: [Linear; 2],
    norm: Norm,
    dropout: f64,
}

impl Relation {
    pub(super) fn new(scope: &Scope<'_>, width: i64, layers: i64, condition: Condition, dropout: f64) -> Result<Self> {
        at_least_one("layers", layers)?;
        let layer = |name: String, bias: bool| Linear::new(&scope.pp(name), width, width, bias);
        Ok(Self {
            first: [layer("one".into(), false)?, layer("other".into(), false)?, layer("question".into(), true)?],
            scales: match condition {
                Condition::Concatenated => None,
                Condition::Modulated => Some([layer("scale_one".into(), true)?, layer("scale_other".into(), true)?]),
            },
            layers: (1..layers).map(|n| layer(format!("layers.{n}"), true)).collect::<mm_core::Result<_>>()?,
            output: [layer("output1".into(), true)?, layer("output2".into(), true)?],
            norm: Norm::new(&scope.pp("norm"), width, NormConfig::default())?,
            dropout,
        })
    }
}

impl Body for Relation {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let mut sides = [
            self.first[0].forward(&s.places, s.train)?.unsqueeze(1)?,
            self.first[1].forward(&s.places, s.train)?.unsqueeze(2)?,
        ];
        if let Some(scales) = &self.scales {
            for (side, scale) in sides.iter_mut().zip(scales) {
                let scale = scale.forward(&s.question, s.train)?.add_scalar(1.0)?;
                *side = side.mul(&scale.unsqueeze(1)?.unsqueeze(1)?)?;
            }
        }
        let asked = self.first[2].forward(&s.question, s.train)?.unsqueeze(1)?.unsqueeze(1)?;
        // The question joins the smaller tensor: pairs are written once.
        let mut x = sides[0].add(&asked)?.add(&sides[1])?.relu()?; // [rows, places, places, width]
        for layer in &self.layers {
            x = layer.forward(&x, s.train)?.relu()?;
        }
        let there = s.places_mask.to_dtype(x.dtype()?)?;
        let shape = x.shape();
        // The sum over one of the two places, under its mask, as a product: no copy of all pairs.
        let per_place = there.unsqueeze(1)?.matmul(&x.reshape(&[shape[0], shape[1], shape[2] * shape[3]])?)?;
        let per_place = per_place.reshape(&[shape[0], shape[2], shape[3]])?.to_dtype(DType::F32)?;
        let per_place = per_place.mul(&s.places_mask.to_dtype(DType::F32)?.unsqueeze(2)?)?; // [rows, places, width]
        // A normalised sum: the number of places does not set its scale, as it would a plain sum's, nor make it small, as a mean's.
        let total = self.norm.forward(&per_place.sum_dims(&[1], false)?, s.train)?;
        let strength = per_place.sum_dims(&[2], false)?;
        let weights = strength.div(&strength.sum_dims(&[1], true)?.clamp_min(1e-9)?)?;
        let y = self.output[0].forward(&total, s.train)?.relu()?.dropout(self.dropout, s.train)?;
        Ok((self.output[1].forward(&y, s.train)?, vec![weights]))
    }
}
