//! Side by side, or on top of each other: the two plainest ways (Ngiam 2011 calls the first early fusion).

use crate::{
    Result,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{Init, Module, Scope, Tensor, nn::Linear};

/// All vectors and a flag for each that says whether it is there, side by side, through a layer (with a rectified one between).
pub(crate) struct Concat {
    first: Option<Linear>,
    last: Linear,
}

impl Concat {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, hidden: i64) -> Result<Self> {
        let all = sizes.parts.iter().sum::<i64>() + sizes.parts.len() as i64;
        let first = (hidden > 0).then(|| Linear::new(&scope.pp("fc1"), all, hidden, true)).transpose()?;
        let last = Linear::new(&scope.pp("fc2"), if hidden > 0 { hidden } else { all }, sizes.width, true)?;
        Ok(Self { first, last })
    }
}

/// `[rows, width of each + 1 for each]`.
pub(crate) fn beside(parts: &[Part]) -> Result<Tensor> {
    let mut all = Vec::new();
    for part in parts {
        all.push(part.values.clone());
        all.push(part.flag()?);
    }
    Ok(Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?)
}

impl Body for Concat {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let mut x = beside(parts)?;
        if let Some(first) = &self.first {
            x = first.forward(&x, train)?.relu()?; // [rows, hidden]
        }
        Ok(Combined::of(self.last.forward(&x, train)?))
    }
}

/// The modalities on top of each other `[rows, modalities, width]`, and a weight for each place; those that are missing are left out.
pub(crate) struct Stack {
    weights: Tensor,
    last: Linear,
}

impl Stack {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>) -> Result<Self> {
        crate::intermediate::one_width(sizes, "stack")?;
        let (count, width) = (sizes.parts.len() as i64, sizes.parts[0]);
        let weights = scope.param("weights", &[count, width], Init::Zeros)?;
        Ok(Self { weights, last: Linear::new(&scope.pp("out_proj"), width, sizes.width, true)? })
    }
}

impl Body for Stack {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let values = Tensor::stack(&parts.iter().map(|p| &p.values).collect::<Vec<_>>(), 1)?; // [rows, modalities, width]
        let there = Tensor::stack(&parts.iter().map(|p| &p.present).collect::<Vec<_>>(), 1)?.unsqueeze(-1)?;
        let shares = self.weights.exp()?.mul(&there)?; // [rows, modalities, width]
        let total = shares.sum_dim(&[1], true)?.clamp_min(1e-9)?;
        let mixed = values.mul(&shares.div(&total)?)?.sum_dim(&[1], false)?; // [rows, width]
        Ok(Combined::of(self.last.forward(&mixed, train)?))
    }
}
