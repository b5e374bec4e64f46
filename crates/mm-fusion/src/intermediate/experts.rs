//! A mixture of experts (Jacobs 1991), one that sees each modality alone and one that sees all, told by a router that knows what is there;
//! a loss keeps all of them in use (Shazeer 2017).

use crate::{
    Result,
    early::concat_beside,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    Module, Scope, Tensor,
    nn::{Activation, Linear, Mlp, MlpConfig},
};

pub(crate) struct Experts {
    own: Vec<(Linear, Mlp)>,
    all: (Linear, Mlp),
    router: Linear,
    balance: f64,
}

impl Experts {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, balance: f64) -> Result<Self> {
        let together = sizes.parts.iter().sum::<i64>() + sizes.parts.len() as i64;
        let mlp = MlpConfig::new(sizes.width, Activation::Gelu);
        let expert = |place: Scope<'_>, input: i64| -> Result<(Linear, Mlp)> {
            Ok((
                Linear::new(&place.pp("fc"), input, sizes.width, true)?,
                Mlp::new(&place.pp("mlp"), sizes.width, &mlp)?,
            ))
        };
        let mut own = Vec::new();
        for (number, width) in sizes.parts.iter().enumerate() {
            own.push(expert(scope.pp("experts").pp(number), *width)?);
        }
        Ok(Self {
            own,
            all: expert(scope.pp("experts").pp("all"), together)?,
            router: Linear::new(&scope.pp("router"), together, sizes.parts.len() as i64 + 1, true)?,
            balance,
        })
    }
}

impl Body for Experts {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let together = concat_beside(parts)?;
        let mut flags: Vec<Tensor> = parts.iter().map(|p| p.present.clone()).collect();
        flags.push(parts[0].present.ones_like()?);
        let there = Tensor::stack(&flags.iter().collect::<Vec<_>>(), 1)?; // [rows, experts]
        let scores = self.router.forward(&together, train)?;
        let scores = scores.masked_fill(&there.gt_scalar(0.5)?.logical_not()?, scores.dtype()?.mask_value())?;
        let shares = scores.softmax(1)?; // [rows, experts]
        let run = |(first, rest): &(Linear, Mlp), x: &Tensor| -> Result<Tensor> {
            let x = first.forward(x, train)?;
            Ok(x.add(&rest.forward(&x.gelu()?, train)?)?)
        };
        let mut outputs = Vec::new();
        for (part, expert) in parts.iter().zip(&self.own) {
            outputs.push(run(expert, &part.values)?);
        }
        outputs.push(run(&self.all, &together)?);
        let outputs = Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 1)?; // [rows, experts, width]
        let values = outputs.mul(&shares.unsqueeze(-1)?)?.sum_dim(&[1], false)?;
        // Squared coefficient of variation of how much each was used.
        let used = shares.sum_dim(&[0], false)?; // [experts]
        let mean = used.mean()?;
        let loss =
            used.sub(&mean)?.pow(2.0)?.mean()?.div(&mean.pow(2.0)?.add_scalar(1e-9)?)?.mul_scalar(self.balance)?;
        let weights = (0..parts.len() as i64).map(|n| Ok(shares.select(1, n)?)).collect::<Result<_>>()?;
        Ok(Combined { loss: (self.balance > 0.0).then_some(loss), weights, ..Combined::of(values) })
    }
}
