//! The gated multimodal unit (Arevalo 2017): each modality's hidden state is let through as far as all modalities together say.

use crate::{
    Result,
    early::concat_beside,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{Module, Scope, nn::Linear};

pub(crate) struct Gated {
    hidden: Vec<Linear>,
    gates: Vec<Linear>,
}

impl Gated {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>) -> Result<Self> {
        let all = sizes.parts.iter().sum::<i64>() + sizes.parts.len() as i64;
        let (mut hidden, mut gates) = (Vec::new(), Vec::new());
        for (number, width) in sizes.parts.iter().enumerate() {
            hidden.push(Linear::new(&scope.pp("hidden").pp(number), *width, sizes.width, true)?);
            gates.push(Linear::new(&scope.pp("gates").pp(number), all, sizes.width, true)?);
        }
        Ok(Self { hidden, gates })
    }
}

impl Body for Gated {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let all = concat_beside(parts)?;
        let (mut sum, mut weights) = (None, Vec::new());
        for ((part, hidden), gate) in parts.iter().zip(&self.hidden).zip(&self.gates) {
            let open = gate.forward(&all, train)?.sigmoid()?.mul(&part.flag()?)?; // [rows, width]
            let own = hidden.forward(&part.values, train)?.tanh()?.mul(&open)?;
            weights.push(open.mean_dim(&[1], false)?);
            sum = Some(match sum {
                Some(sum) => own.add(&sum)?,
                None => own,
            });
        }
        let values = sum.map_or_else(|| all.zeros_like(), Ok)?;
        Ok(Combined { weights, ..Combined::of(values) })
    }
}
