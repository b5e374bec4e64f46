//! Feature-wise linear modulation.

use super::layers::concat_with_presence;
use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{
    Module,
    nn::{Linear, Norm, NormConfig},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "film",
    description: "the other modalities scale and shift the main one (FiLM, Perez et al. 2018)",
    takes_sequences: false,
    build,
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilmConfig {
    /// The main modality; text, or else the first, by default.
    main_modality: Option<String>,
}

const NUM_BLOCKS: usize = 2;

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let config: FilmConfig = context.options()?;
    let main = context.main_modality(config.main_modality.as_deref())?;
    let (scope, dim) = (&context.scope, context.dim);
    let others = context.input_dims.iter().enumerate().filter(|(index, _)| *index != main);
    let condition_dim = others.map(|(_, dim)| dim + 1).sum::<i64>().max(1);
    let mut blocks = Vec::new();
    for index in 0..NUM_BLOCKS {
        let scope = scope.pp("blocks").pp(index);
        blocks.push(FilmBlock {
            film: Linear::new(&scope.pp("film"), condition_dim, 2 * dim, true)?,
            fc: Linear::new(&scope.pp("fc"), dim, dim, true)?,
            norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
        });
    }
    let fc = Linear::new(&scope.pp("fc"), context.input_dims[main], dim, true)?;
    Ok(Box::new(Film { fc, blocks, main, dim }))
}

struct FilmBlock {
    /// Scale and shift from the other modalities.
    film: Linear,
    fc: Linear,
    norm: Norm,
}

/// *FiLM: Visual Reasoning with a General Conditioning Layer* (Perez et al., 2018, <https://arxiv.org/abs/1709.07871>).
struct Film {
    fc: Linear,
    blocks: Vec<FilmBlock>,
    main: usize,
    dim: i64,
}

impl FusionOperator for Film {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let others: Vec<ModalityInput> =
            inputs.iter().enumerate().filter(|(index, _)| *index != self.main).map(|(_, p)| p.clone()).collect();
        let condition =
            if others.is_empty() { inputs[0].present_column()?.zeros_like()? } else { concat_with_presence(&others)? };
        let mut x = self.fc.forward(&inputs[self.main].values, train)?;
        for FilmBlock { film, fc, norm } in &self.blocks {
            let film = film.forward(&condition, train)?; // [rows, 2 · dim]
            let (scale, shift) = (film.narrow(1, 0, self.dim)?, film.narrow(1, self.dim, self.dim)?);
            let y = norm.forward(&fc.forward(&x, train)?, train)?;
            x = x.add(&y.mul(&scale.add_scalar(1.0)?)?.add(&shift)?.relu()?)?;
        }
        Ok(OperatorOutput::new(x))
    }
}
