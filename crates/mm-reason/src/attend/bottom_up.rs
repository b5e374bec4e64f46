//! Bottom-up and top-down attention's way of answering (Anderson 2018; Teney 2018): a gated layer scores each place under the question,
//! and the product of question and what was seen is the answer.

use super::{Body, Scene, Thought};
use crate::Result;
use mm_core::{Module, Scope, Tensor, nn::Linear};

/// `tanh(W x) · sigmoid(W' x)`.
struct Gated(Linear, Linear);

impl Gated {
    fn new(scope: &Scope<'_>, input: i64, output: i64) -> Result<Self> {
        let layer = |name: &str| Linear::new(&scope.pp(name), input, output, true);
        Ok(Self(layer("value")?, layer("gate")?))
    }

    fn forward(&self, x: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        self.0.forward(x, train)?.tanh()?.mul(&self.1.forward(x, train)?.sigmoid()?)
    }
}

pub(super) struct BottomUp {
    attend: Gated,
    score: Linear,
    question: Gated,
    seen: Gated,
}

impl BottomUp {
    pub(super) fn new(scope: &Scope<'_>, width: i64) -> Result<Self> {
        Ok(Self {
            attend: Gated::new(&scope.pp("attend"), 2 * width, width)?,
            score: Linear::new(&scope.pp("score"), width, 1, false)?,
            question: Gated::new(&scope.pp("question"), width, width)?,
            seen: Gated::new(&scope.pp("seen"), width, width)?,
        })
    }
}

impl Body for BottomUp {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let asked = s.question.unsqueeze(1)?.expand(&s.places.shape())?;
        let both = Tensor::cat(&[&s.places, &asked], 2)?;
        let weights = s.weigh(&self.score.forward(&self.attend.forward(&both, s.train)?, s.train)?.squeeze(2)?)?;
        let seen = Scene::gather(&weights, &s.places)?;
        let answer = self.question.forward(&s.question, s.train)?.mul(&self.seen.forward(&seen, s.train)?)?;
        Ok((answer, vec![weights]))
    }
}
