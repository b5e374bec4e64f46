//! Attention by MUTAN (Ben-younes 2017): the bilinear form of question and place in Tucker's decomposition, its core of bounded rank, scores
//! each place and joins the question with what was seen.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{Module, Scope, Tensor, nn::Linear};

/// `Σ_r tanh(question · M_r) ⊙ tanh(place · N_r)`.
struct Pooling {
    ways: [Linear; 2],
    rank: i64,
}

impl Pooling {
    fn new(scope: &Scope<'_>, width: i64, rank: i64) -> Result<Self> {
        let way = |name: &str| Linear::new(&scope.pp(name), width, rank * width, true);
        Ok(Self { ways: [way("question")?, way("place")?], rank })
    }

    /// Questions `[rows, width]`, places `[rows, places, width]` → `[rows, places, width]`.
    fn pool(&self, question: &Tensor, places: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let asked = self.ways[0].forward(question, train)?.tanh()?.unsqueeze(1)?;
        let product = self.ways[1].forward(places, train)?.tanh()?.mul(&asked)?;
        let shape = places.shape();
        product.reshape(&[shape[0], shape[1], self.rank, shape[2]])?.sum_dims(&[2], false)?.tanh()
    }
}

pub(super) struct Mutan {
    attending: Pooling,
    score: Linear,
    joining: Pooling,
    output: Linear,
}

impl Mutan {
    pub(super) fn new(scope: &Scope<'_>, width: i64, rank: i64) -> Result<Self> {
        at_least_one("rank", rank)?;
        Ok(Self {
            attending: Pooling::new(&scope.pp("attending"), width, rank)?,
            score: Linear::new(&scope.pp("score"), width, 1, true)?,
            joining: Pooling::new(&scope.pp("joining"), width, rank)?,
            output: Linear::new(&scope.pp("output"), width, width, true)?,
        })
    }
}

impl Body for Mutan {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let pooled = self.attending.pool(&s.question, &s.places, s.train)?;
        let weights = s.weigh(&self.score.forward(&pooled, s.train)?.squeeze(2)?)?;
        let seen = Scene::gather(&weights, &s.places)?.unsqueeze(1)?;
        let joint = self.joining.pool(&s.question, &seen, s.train)?.squeeze(1)?;
        Ok((self.output.forward(&joint, s.train)?, vec![weights]))
    }
}
