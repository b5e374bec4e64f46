//! The multimodal adaptation gate (MAG, Rahman 2020): the other modalities displace the main one's vector, at most by a part of its
//! length. Where the main modality is missing, the displacement itself is the answer.

use crate::{
    Result,
    inputs::Part,
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    Module, Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};

pub(crate) struct Adaptation {
    base: Linear,
    /// For each other modality: its gate, its displacement.
    others: Vec<(usize, Linear, Linear)>,
    norm: Norm,
    main: usize,
    beta: f64,
}

impl Adaptation {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, beta: f64) -> Result<Self> {
        let own = sizes.parts[sizes.main];
        let mut others = Vec::new();
        for (number, width) in sizes.parts.iter().enumerate().filter(|(n, _)| *n != sizes.main) {
            let place = scope.pp("others").pp(number);
            others.push((
                number,
                Linear::new(&place.pp("gate"), own + width, sizes.width, true)?,
                Linear::new(&place.pp("shift"), *width, sizes.width, true)?,
            ));
        }
        Ok(Self {
            base: Linear::new(&scope.pp("base"), own, sizes.width, true)?,
            others,
            norm: Norm::new(&scope.pp("norm"), sizes.width, NormConfig::default())?,
            main: sizes.main,
            beta,
        })
    }
}

impl Body for Adaptation {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let main = &parts[self.main];
        let x = self.base.forward(&main.values, train)?; // [rows, width]
        let mut shift = x.zeros_like()?;
        for (number, gate, layer) in &self.others {
            let other = &parts[*number];
            let open = gate.forward(&Tensor::cat(&[&other.values, &main.values], 1)?, train)?.relu()?;
            shift = shift.add(&layer.forward(&other.values, train)?.mul(&open)?.mul(&other.flag()?)?)?;
        }
        let (long, wide) = (x.norm(1, true)?, shift.norm(1, true)?.add_scalar(1e-6)?);
        let scale = long.div(&wide)?.mul_scalar(self.beta)?.clamp(0.0, 1.0)?; // [rows, 1]
        let here = main.flag()?;
        let absent = here.neg()?.add_scalar(1.0)?;
        let sum = x.mul(&here)?.add(&shift.mul(&scale.mul(&here)?.add(&absent)?)?)?;
        Ok(Combined::of(self.norm.forward(&sum, train)?))
    }
}
