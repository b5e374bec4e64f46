//! Multimodal compact bilinear pooling (MCB, Fukui 2016): the outer product of two vectors, folded into a sketch (Pham 2013), scores each
//! place under the question, and joins the question with what was seen.

use super::{Body, Scene, Thought, at_least_one};
use crate::Result;
use mm_core::{Init, Module, Scope, Tensor, nn::Linear};

pub(super) struct CompactBilinear {
    /// Count sketches: which place of the sketch each number goes to, with which sign; `[width, sketch]`, fixed.
    sketches: [Tensor; 4],
    score: Linear,
    output: Linear,
}

impl CompactBilinear {
    pub(super) fn new(scope: &Scope<'_>, width: i64, sketch: i64) -> Result<Self> {
        at_least_one("sketch", sketch)?;
        let make = |n: i64| {
            // A buffer: drawn once, kept in the checkpoint.
            let held = scope.buffer(&format!("sketch{n}"), &[width, sketch], Init::Zeros)?;
            let index = Tensor::rand(&[width, 1], mm_core::DType::F32, held.device())?.mul_scalar(sketch as f64)?;
            let index = index.clamp(0.0, (sketch - 1) as f64)?.to_dtype(mm_core::DType::I64)?;
            let sign = Tensor::rand(&[width, 1], mm_core::DType::F32, held.device())?.add_scalar(-0.5)?.sign()?;
            held.assign(&held.zeros_like()?.scatter_add(1, &index, &sign)?)?;
            Ok::<_, crate::Error>(held)
        };
        Ok(Self {
            sketches: [make(0)?, make(1)?, make(2)?, make(3)?],
            score: Linear::new(&scope.pp("score"), sketch, 1, true)?,
            output: Linear::new(&scope.pp("output"), sketch, width, true)?,
        })
    }

    /// The sketch of the outer product: the circular convolution of both sketches; signed root and unit length, as the paper.
    fn pool(&self, a: &Tensor, b: &Tensor, first: usize) -> mm_core::Result<Tensor> {
        let sketch = self.sketches[first].size(1)?;
        let a = a.matmul(&self.sketches[first])?;
        let b = b.matmul(&self.sketches[first + 1])?;
        let x = a.circular_convolution(&b, sketch)?;
        // Smooth through zero, where the sign would make much of rounding.
        let root = x.div(&x.abs()?.add_scalar(1e-4)?.sqrt()?)?;
        root.normalize()
    }
}

impl Body for CompactBilinear {
    fn think(&self, s: &Scene) -> mm_core::Result<Thought> {
        let asked = s.question.unsqueeze(1)?.expand(&s.places.shape())?;
        let pooled = self.pool(&s.places, &asked, 0)?; // [rows, places, sketch]
        // Of unit length, so scores need room.
        let scores = self.score.forward(&pooled.mul_scalar((pooled.size(2)? as f64).sqrt())?, s.train)?.squeeze(2)?;
        let weights = s.weigh(&scores)?;
        let joint = self.pool(&Scene::gather(&weights, &s.places)?, &s.question, 2)?;
        let joint = joint.mul_scalar((joint.size(1)? as f64).sqrt())?;
        Ok((self.output.forward(&joint, s.train)?, vec![weights]))
    }
}
