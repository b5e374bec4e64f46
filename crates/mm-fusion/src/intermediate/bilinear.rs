//! Bilinear pooling with factored weights: MLB (Kim 2017, a Hadamard product), MFB (Yu 2017, sums of products, normalised by power and
//! length), MUTAN (Ben-younes 2017, a Tucker core of bounded rank). A missing modality is left out of the product.

use crate::{
    Error, Result,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{Module, Scope, Tensor, nn::Linear};

/// Which of the three.
#[derive(Clone, Copy)]
pub(crate) enum Pooling {
    Mlb,
    /// Products that are summed for each output.
    Mfb(i64),
    /// Rank of the core.
    Mutan(i64),
}

pub(crate) struct Bilinear {
    ways: Vec<Linear>,
    last: Linear,
    pooling: Pooling,
    width: i64,
}

impl Bilinear {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, pooling: Pooling) -> Result<Self> {
        let times = match pooling {
            Pooling::Mlb => 1,
            Pooling::Mfb(times) | Pooling::Mutan(times) => times,
        };
        let parts = sizes.parts.iter().enumerate();
        Ok(Self {
            ways: parts
                .map(|(n, width)| Ok(Linear::new(&scope.pp("parts").pp(n), *width, sizes.width * times, true)?))
                .collect::<Result<_>>()?,
            last: Linear::new(&scope.pp("out_proj"), sizes.width, sizes.width, true)?,
            pooling,
            width: sizes.width,
        })
    }
}

impl Body for Bilinear {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let mut product: Option<Tensor> = None;
        for (part, way) in parts.iter().zip(&self.ways) {
            let own = way.forward(&part.values, train)?;
            // MFB has no nonlinearity before its product.
            let own = if matches!(self.pooling, Pooling::Mfb(_)) { own } else { own.tanh()? };
            let flag = part.flag()?;
            let own = own.mul(&flag)?.add(&flag.neg()?.add_scalar(1.0)?)?; // one where it is missing
            product = Some(match product {
                Some(so_far) => so_far.mul(&own)?,
                None => own,
            });
        }
        let product = product.ok_or_else(|| Error::config("bilinear pooling", "no modality", "at least one"))?;
        let pooled = match self.pooling {
            Pooling::Mlb => product,
            Pooling::Mfb(times) => {
                let sum = product.reshape(&[-1, self.width, times])?.sum_dim(&[2], false)?; // [rows, width]
                // The root's slope at zero is not finite; the small number keeps it.
                sum.sign()?
                    .mul(&sum.abs()?.add_scalar(1e-6)?.sqrt()?)?
                    .normalize()?
                    .mul_scalar((self.width as f64).sqrt())?
            }
            Pooling::Mutan(times) => product.reshape(&[-1, times, self.width])?.sum_dim(&[1], false)?.tanh()?,
        };
        Ok(Combined::of(self.last.forward(&pooled, train)?))
    }
}
