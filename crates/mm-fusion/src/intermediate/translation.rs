//! Cyclic translation (MCTN, Pham 2019): the main modality is encoded so that the others can be told from the code, and the code from them
//! again; then the main modality alone is enough, and the rest may be missing.

use crate::{
    Result,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    DType, Module, Scope, Tensor,
    nn::{Activation, Linear, Mlp, MlpConfig},
};

pub(crate) struct Translation {
    encode: (Linear, Mlp),
    /// For each other modality: there and back.
    others: Vec<(usize, Linear, Linear)>,
    main: usize,
    weight: f64,
}

impl Translation {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, weight: f64) -> Result<Self> {
        let own = sizes.parts[sizes.main];
        let mlp = MlpConfig::new(2 * sizes.width, Activation::Gelu);
        let mut others = Vec::new();
        for (number, width) in sizes.parts.iter().enumerate().filter(|(n, _)| *n != sizes.main) {
            let place = scope.pp("others").pp(number);
            others.push((
                number,
                Linear::new(&place.pp("there"), sizes.width, *width, true)?,
                Linear::new(&place.pp("back"), *width, own, true)?,
            ));
        }
        Ok(Self {
            encode: (
                Linear::new(&scope.pp("encoder"), own, sizes.width, true)?,
                Mlp::new(&scope.pp("mlp"), sizes.width, &mlp)?,
            ),
            others,
            main: sizes.main,
            weight,
        })
    }
}

impl Body for Translation {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let main = &parts[self.main];
        let x = self.encode.0.forward(&main.values, train)?.gelu()?;
        let code = x.add(&self.encode.1.forward(&x, train)?)?; // [rows, width]
        let mut loss = Tensor::zeros(&[], DType::F32, code.device())?;
        for (number, there, back) in &self.others {
            let other = &parts[*number];
            let said = there.forward(&code, train)?;
            let both = main.flag()?.mul(&other.flag()?)?;
            let rows = |flag: &Tensor| flag.sum()?.clamp_min(1.0);
            let off = said.sub(&other.values.detach()?)?.pow(2.0)?.mean_dim(&[1], true)?.mul(&both)?;
            let again = back.forward(&said, train)?.sub(&main.values.detach()?)?;
            let again = again.pow(2.0)?.mean_dim(&[1], true)?.mul(&main.flag()?)?;
            loss = loss.add(&off.sum()?.div(&rows(&both)?)?)?.add(&again.sum()?.div(&rows(&main.flag()?)?)?)?;
        }
        Ok(Combined { loss: train.then_some(loss.mul_scalar(self.weight)?), ..Combined::of(code) })
    }
}
