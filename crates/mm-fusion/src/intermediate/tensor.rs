//! Tensor fusion (Zadeh 2017): the outer product of all modalities, each with a one beside it, so that every product of any of them stands
//! somewhere in it; and its low-rank kind (Liu 2018), which never makes the product.

use crate::{
    Error, Result,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{Init, Module, Scope, Tensor, nn::Linear};

pub(crate) struct TensorFusion {
    narrow: Vec<Linear>,
    first: Linear,
    last: Linear,
}

impl TensorFusion {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, part: i64, hidden: i64) -> Result<Self> {
        let product = (part + 1).checked_pow(sizes.parts.len() as u32).filter(|p| *p <= 1 << 20).ok_or_else(|| {
            let found = format!("{part} with {} modalities", sizes.parts.len());
            Error::config("fusion.operator.part", found, "a product (part + 1)^modalities of at most 1,048,576")
        })?;
        let narrow = sizes.parts.iter().enumerate();
        Ok(Self {
            narrow: narrow
                .map(|(n, width)| Ok(Linear::new(&scope.pp("parts").pp(n), *width, part, true)?))
                .collect::<Result<_>>()?,
            first: Linear::new(&scope.pp("fc1"), product, hidden, true)?,
            last: Linear::new(&scope.pp("fc2"), hidden, sizes.width, true)?,
        })
    }
}

impl Body for TensorFusion {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let mut product: Option<Tensor> = None;
        for (part, narrow) in parts.iter().zip(&self.narrow) {
            // A missing modality is the one alone: the product of the others stays.
            let own = narrow.forward(&part.values, train)?.relu()?.mul(&part.flag()?)?.pad(&[1, 0], 1.0)?; // [rows, part + 1]
            product = Some(match product {
                Some(so_far) => so_far.unsqueeze(2)?.mul(&own.unsqueeze(1)?)?.flatten(1, 2)?,
                None => own,
            });
        }
        let product = product.ok_or_else(|| Error::config("tensor", "no modality", "at least one"))?;
        Ok(Combined::of(self.last.forward(&self.first.forward(&product, train)?.relu()?, train)?))
    }
}

pub(crate) struct LowRank {
    /// `[rank, width + 1, output]` of each modality, the last row of the one.
    factors: Vec<Tensor>,
    weights: Tensor,
    bias: Tensor,
}

impl LowRank {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, rank: i64) -> Result<Self> {
        let mut factors = Vec::new();
        for (number, width) in sizes.parts.iter().enumerate() {
            // Xavier's, as the authors; over the two last dimensions.
            let std = (2.0 / (width + 1 + sizes.width) as f64).sqrt();
            factors.push(scope.pp("factors").param(
                &number.to_string(),
                &[rank, width + 1, sizes.width],
                Init::Normal(std),
            )?);
        }
        Ok(Self {
            factors,
            weights: scope.param("fusion_weights", &[rank], Init::Normal((1.0 / rank as f64).sqrt()))?,
            bias: scope.param("fusion_bias", &[sizes.width], Init::Zeros)?,
        })
    }
}

impl Body for LowRank {
    fn combine(&self, parts: &[Part], _train: bool) -> Result<Combined> {
        let mut product: Option<Tensor> = None;
        for (part, factor) in parts.iter().zip(&self.factors) {
            let own = part.values.pad(&[0, 1], 1.0)?.unsqueeze(0)?.matmul(factor)?; // [rank, rows, output]
            product = Some(match product {
                Some(so_far) => so_far.mul(&own)?,
                None => own,
            });
        }
        let product = product.ok_or_else(|| Error::config("low_rank", "no modality", "at least one"))?;
        let mixed = product.mul(&self.weights.reshape(&[-1, 1, 1])?)?.sum_dim(&[0], false)?;
        Ok(Combined::of(mixed.add(&self.bias)?))
    }
}
