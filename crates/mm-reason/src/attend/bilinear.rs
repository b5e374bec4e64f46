//! Bilinear attention (BAN, Kim 2018): each pair of a word and a place has a weight, the sum of their products under it is added to the
//! words, and the next glimpse goes on from those.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{DType, Features, Init, Module, Pool, Scope, Tensor, nn::Linear};

struct Glimpse {
    score: [Linear; 2],
    weight: Tensor,
    value: [Linear; 2],
    output: Linear,
}

pub(super) struct Bilinear {
    glimpses: Vec<Glimpse>,
}

impl Bilinear {
    pub(super) fn new(scope: &Scope<'_>, width: i64, glimpses: i64) -> Result<Self> {
        at_least_one("glimpses", glimpses)?;
        let glimpse = |n: i64| {
            let place = scope.pp("glimpses").pp(n);
            let layer = |name: &str| Linear::new(&place.pp(name), width, width, true);
            Ok(Glimpse {
                score: [layer("score_words")?, layer("score_places")?],
                weight: place.param("weight", &[width], Init::Normal(1.0 / (width as f64).sqrt()))?,
                value: [layer("words")?, layer("places")?],
                output: layer("output")?,
            })
        };
        Ok(Self { glimpses: (0..glimpses).map(glimpse).collect::<Result<_>>()? })
    }
}

impl Body for Bilinear {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let mut words = s.words.clone();
        let mut looked = Vec::new();
        let counts = s.words_mask.unsqueeze(2)?.logical_and(&s.places_mask.unsqueeze(1)?)?;
        let (rows, count, places) = (words.size(0)?, words.size(1)?, s.places.size(1)?);
        for g in &self.glimpses {
            let left = g.score[0].forward(&words, s.train)?.relu()?.mul(&g.weight)?;
            let right = g.score[1].forward(&s.places, s.train)?.relu()?;
            let scores = left.matmul(&right.transpose(1, 2)?)?; // [rows, words, places]
            let scores = scores.masked_fill(&counts.logical_not()?, DType::F32.lowest())?;
            let map = scores.reshape(&[rows, -1])?.softmax(-1)?.reshape(&[rows, count, places])?;
            let left = g.value[0].forward(&words, s.train)?.relu()?;
            let right = map.matmul(&g.value[1].forward(&s.places, s.train)?.relu()?)?; // [rows, words, width]
            let joint = left.mul(&right)?.sum_dims(&[1], true)?; // [rows, 1, width]
            words = words.add(&g.output.forward(&joint, s.train)?)?;
            looked.push(map.sum_dims(&[1], false)?);
        }
        let answer = Features::new(words, Some(s.words_mask.clone()))?.pool(Pool::Mean)?;
        Ok((answer.add(&s.question)?, looked))
    }
}
