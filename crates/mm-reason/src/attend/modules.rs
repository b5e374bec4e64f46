//! A chain of neural modules (Andreas 2016, their attention passed on softly as in Hu 2018): the words of the asking modality are a program,
//! each one a step that moves attention over the places. The trace of a program is where each of its steps looked.

use super::{Body, Scene, Thought};
use crate::Result;
use mm_core::{DType, Init, Module, Scope, Tensor, nn::Linear};

pub(super) struct Modules {
    /// Of a place, and of what was attended to before.
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
    read: Linear,
    output: [Linear; 2],
    dropout: f64,
}

impl Modules {
    pub(super) fn new(scope: &Scope<'_>, width: i64, dropout: f64) -> Result<Self> {
        let layer = |name: &str, input: i64, output: i64| Linear::new(&scope.pp(name), input, output, true);
        Ok(Self {
            sides: [layer("place", width, width)?, layer("attended", width, width)?],
            scales: [layer("scale_place", width, width)?, layer("scale_attended", width, width)?],
            before: scope.param("before", &[width], Init::Normal(0.1))?,
            layer: layer("layer", width, width)?,
            scores: layer("scores", width, 2)?,
            means: layer("means", width, 3)?,
            read: layer("read", width, width)?,
            output: [layer("output1", 2 * width, width)?, layer("output2", width, width)?],
            dropout,
        })
    }
}

impl Body for Modules {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let there = s.places_mask.to_dtype(DType::F32)?;
        let counts = s.words_mask.to_dtype(DType::F32)?;
        let share = |attention: &Tensor| attention.div(&attention.sum_dims(&[1], true)?.clamp_min(1e-6)?);
        let places = self.sides[0].forward(&s.places, s.train)?;
        let mut attention = there.clone(); // [rows, places]: a program begins with all
        let mut looked = Vec::new();
        for step in 0..s.words.size(1)? {
            let word = s.words.select(1, step)?;
            let scale = |n: usize| self.scales[n].forward(&word, s.train)?.add_scalar(1.0);
            let attended = Scene::gather(&share(&attention)?.to_dtype(s.places.dtype()?)?, &s.places)?;
            let attended = self.sides[1].forward(&attended, s.train)?.mul(&scale(1)?)?;
            let held = attention.unsqueeze(2)?.mul(&self.before)?;
            let x = places.mul(&scale(0)?.unsqueeze(1)?)?.add(&attended.unsqueeze(1)?)?.add(&held)?.relu()?;
            let scores = self.scores.forward(&self.layer.forward(&x, s.train)?.relu()?, s.train)?;
            let scores = scores.to_dtype(DType::F32)?; // [rows, places, 2]
            let single = s.weigh(&scores.select(2, 0)?)?;
            let several = scores.select(2, 1)?.sigmoid()?.mul(&there)?;
            let means = self.means.forward(&word, s.train)?.to_dtype(DType::F32)?.softmax(-1)?; // [rows, 3]
            let of = |n: i64, attention: &Tensor| attention.mul(&means.narrow(1, n, 1)?);
            let moved = of(0, &single)?.add(&of(1, &several)?)?.add(&of(2, &attention)?)?;
            // A program that has ended stays where it was.
            let goes = counts.select(1, step)?.unsqueeze(1)?;
            attention = attention.add(&moved.sub(&attention)?.mul(&goes)?)?;
            looked.push(share(&attention)?);
        }
        // A sum and no mean: how many there are is an answer too.
        let read = self.read.forward(&s.places, s.train)?.relu()?;
        let seen = Scene::gather(&attention.to_dtype(read.dtype()?)?, &read)?;
        let y = self.output[0].forward(&Tensor::cat(&[&seen, &s.question], 1)?, s.train)?.relu()?;
        Ok((self.output[1].forward(&y.dropout(self.dropout, s.train)?, s.train)?, looked))
    }
}
