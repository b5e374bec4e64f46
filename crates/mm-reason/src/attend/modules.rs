//! A chain of neural modules (Andreas 2016; attention passed on softly as in Hu 2018, beside a memory): the words of the asking modality are a
//! program, each one a step that moves attention over the places and remembers what it saw there. The trace of a program is where each of its
//! steps looked.

use super::{Body, Scene, Thought};
use crate::Result;
use mm_core::{
    DType, Init, Module, Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};

pub(super) struct Modules {
    /// Of a place, and of what is remembered.
    sides: [Linear; 2],
    /// What a word scales the channels of either by.
    scales: [Linear; 2],
    /// How a place that was attended to before differs from others.
    before: Tensor,
    layer: Linear,
    /// Scores of a place as the one that is meant, and as one of those that are.
    scores: Linear,
    /// Whether a word means one place, all that fit, or those that are attended to already.
    means: Linear,
    norm: Norm,
    output: [Linear; 2],
    dropout: f64,
}

impl Modules {
    pub(super) fn new(scope: &Scope<'_>, width: i64, dropout: f64) -> Result<Self> {
        let layer = |name: &str, input: i64, output: i64| Linear::new(&scope.pp(name), input, output, true);
        Ok(Self {
            sides: [layer("place", width, width)?, layer("memory", width, width)?],
            scales: [layer("scale_place", width, width)?, layer("scale_memory", width, width)?],
            before: scope.param("before", &[width], Init::Normal(0.1))?,
            layer: layer("layer", width, width)?,
            scores: layer("scores", width, 2)?,
            means: layer("means", width, 3)?,
            norm: Norm::new(&scope.pp("norm"), width, NormConfig::default())?,
            output: [layer("output1", 2 * width, width)?, layer("output2", width, width)?],
            dropout,
        })
    }
}

impl Body for Modules {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let there = s.places_mask.to_dtype(DType::F32)?;
        let counts = s.words_mask.to_dtype(DType::F32)?;
        let places = self.sides[0].forward(&s.places, s.train)?;
        let mut attention = there.clone(); // [rows, places]: a program begins with all
        let mut memory = s.question.zeros_like()?.to_dtype(DType::F32)?; // [rows, width]
        let mut looked = Vec::new();
        for step in 0..s.words.size(1)? {
            let word = s.words.select(1, step)?;
            let scale = |n: usize| self.scales[n].forward(&word, s.train)?.add_scalar(1.0);
            let held = self.sides[1].forward(&memory, s.train)?.mul(&scale(1)?)?.unsqueeze(1)?;
            let x =
                places.mul(&scale(0)?.unsqueeze(1)?)?.add(&held)?.add(&attention.unsqueeze(2)?.mul(&self.before)?)?;
            let x = self.layer.forward(&x.relu()?, s.train)?.relu()?; // [rows, places, width]
            let scores = self.scores.forward(&x, s.train)?.to_dtype(DType::F32)?; // [rows, places, 2]
            let single = s.weigh(&scores.select(2, 0)?)?;
            let several = scores.select(2, 1)?.sigmoid()?.mul(&there)?;
            let means = self.means.forward(&word, s.train)?.to_dtype(DType::F32)?.softmax(-1)?; // [rows, 3]
            let of = |n: i64, attention: &Tensor| attention.mul(&means.narrow(1, n, 1)?);
            let moved = of(0, &single)?.add(&of(1, &several)?)?.add(&of(2, &attention)?)?;
            // A sum and no mean: how many there are is an answer too.
            let seen = Scene::gather(&moved.to_dtype(x.dtype()?)?, &x)?.to_dtype(DType::F32)?;
            let known = self.norm.forward(&memory.add(&seen)?, s.train)?.to_dtype(DType::F32)?;
            // A program that has ended stays where it was.
            let goes = counts.select(1, step)?.unsqueeze(1)?;
            attention = attention.add(&moved.sub(&attention)?.mul(&goes)?)?;
            memory = memory.add(&known.sub(&memory)?.mul(&goes)?)?;
            looked.push(attention.div(&attention.sum_dims(&[1], true)?.clamp_min(1e-6)?)?.mul(&goes)?);
        }
        let both = Tensor::cat(&[&memory.to_dtype(s.question.dtype()?)?, &s.question], 1)?;
        let y = self.output[0].forward(&both, s.train)?.relu()?;
        Ok((self.output[1].forward(&y.dropout(self.dropout, s.train)?, s.train)?, looked))
    }
}
