//! Multiplicative interactions (Jayakumar 2020): `z = xᵀ W y + U x + V y + b`, a layer whose weights are a function of the other modality.
//! More modalities follow one after another, as MultiBench (Liang 2021) does for three.

use crate::{
    Result,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{Init, Module, Scope, Tensor, nn::Linear};

struct Interaction {
    /// `[left, right, output]`.
    weight: Tensor,
    left: Linear,
    right: Linear,
}

impl Interaction {
    fn new(scope: &Scope<'_>, left: i64, right: i64, output: i64) -> Result<Self> {
        let init = Init::Normal(1.0 / ((left * right) as f64).sqrt());
        Ok(Self {
            weight: scope.param("weight", &[left, right, output], init)?,
            left: Linear::new(&scope.pp("left"), left, output, false)?,
            right: Linear::new(&scope.pp("right"), right, output, true)?,
        })
    }

    fn forward(&self, x: &Tensor, y: &Tensor, train: bool) -> Result<Tensor> {
        let shape = self.weight.shape();
        let turned = x.matmul(&self.weight.reshape(&[shape[0], shape[1] * shape[2]])?)?; // [rows, right · output]
        let product = y.unsqueeze(1)?.matmul(&turned.reshape(&[-1, shape[1], shape[2]])?)?.squeeze(1)?; // [rows, output]
        Ok(product.add(&self.left.forward(x, train)?)?.add(&self.right.forward(y, train)?)?)
    }
}

pub(crate) struct Multiplicative {
    steps: Vec<Interaction>,
    alone: Linear,
}

impl Multiplicative {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>) -> Result<Self> {
        let mut left = sizes.parts[0];
        let mut steps = Vec::new();
        for (number, right) in sizes.parts.iter().enumerate().skip(1) {
            steps.push(Interaction::new(&scope.pp("interactions").pp(number - 1), left, *right, sizes.width)?);
            left = sizes.width;
        }
        Ok(Self { steps, alone: Linear::new(&scope.pp("out_proj"), left, sizes.width, true)? })
    }
}

impl Body for Multiplicative {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let mut x = parts[0].values.clone();
        for (step, part) in self.steps.iter().zip(&parts[1..]) {
            x = step.forward(&x, &part.values, train)?;
        }
        Ok(Combined::of(self.alone.forward(&x, train)?))
    }
}
