//! Stacked attention (SAN, Yang 2016): the question looks at the places, what it saw is added to it, and it looks again.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{Module, Scope, nn::Linear};

pub(super) struct Stacked {
    steps: Vec<[Linear; 3]>,
}

impl Stacked {
    pub(super) fn new(scope: &Scope<'_>, width: i64, steps: i64) -> Result<Self> {
        at_least_one("steps", steps)?;
        let step = |n: i64| {
            let place = scope.pp("steps").pp(n);
            Ok([
                Linear::new(&place.pp("places"), width, width, false)?,
                Linear::new(&place.pp("question"), width, width, true)?,
                Linear::new(&place.pp("score"), width, 1, false)?,
            ])
        };
        Ok(Self { steps: (0..steps).map(step).collect::<Result<_>>()? })
    }
}

impl Body for Stacked {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let mut u = s.question.clone();
        let mut looked = Vec::new();
        for [places, question, score] in &self.steps {
            let h = places.forward(&s.places, s.train)?.add(&question.forward(&u, s.train)?.unsqueeze(1)?)?.tanh()?;
            let weights = s.weigh(&score.forward(&h, s.train)?.squeeze(2)?)?;
            u = u.add(&Scene::gather(&weights, &s.places)?)?;
            looked.push(weights);
        }
        Ok((u, looked))
    }
}
