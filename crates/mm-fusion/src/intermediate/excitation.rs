//! Squeeze and excitation across modalities (MMTM, Joze 2020): what all say together turns each modality's dimensions up or down.

use crate::{
    Result,
    early::concat_beside,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{Module, Scope, Tensor, nn::Linear};

pub(crate) struct Excitation {
    squeeze: Linear,
    excite: Vec<Linear>,
    last: Linear,
}

impl Excitation {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, reduction: i64) -> Result<Self> {
        let all = sizes.parts.iter().sum::<i64>();
        let squeezed = (all / reduction).max(1);
        let parts = sizes.parts.iter().enumerate();
        Ok(Self {
            squeeze: Linear::new(&scope.pp("squeeze"), all + sizes.parts.len() as i64, squeezed, true)?,
            excite: parts
                .map(|(n, width)| Ok(Linear::new(&scope.pp("excite").pp(n), squeezed, *width, true)?))
                .collect::<Result<_>>()?,
            last: Linear::new(&scope.pp("out_proj"), all, sizes.width, true)?,
        })
    }
}

impl Body for Excitation {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let squeezed = self.squeeze.forward(&concat_beside(parts)?, train)?.relu()?;
        let (mut all, mut weights) = (Vec::new(), Vec::new());
        for (part, excite) in parts.iter().zip(&self.excite) {
            let open = excite.forward(&squeezed, train)?.sigmoid()?.mul_scalar(2.0)?; // [rows, width]
            weights.push(open.mean_dim(&[1], false)?.mul(&part.present)?);
            all.push(part.values.mul(&open)?);
        }
        let x = Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?;
        Ok(Combined { weights, ..Combined::of(self.last.forward(&x, train)?) })
    }
}
