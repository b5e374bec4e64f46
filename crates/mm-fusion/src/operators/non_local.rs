//! Non-local block from the main modality to all.

use super::layers::{any_present, mean_pool};
use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{Features, Module, Pooling, Tensor, nn::Linear};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "non_local",
    description: "a non-local block: the main modality attends to all (Wang et al. 2018)",
    takes_sequences: true,
    build,
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NonLocalConfig {
    /// The main modality; text, or else the first, by default.
    main_modality: Option<String>,
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let config: NonLocalConfig = context.options()?;
    context.equal_input_dims(SPEC.kind)?;
    let dim = context.dim;
    let inner_dim = (dim / 2).max(1);
    let layer = |name: &str, input: i64, output: i64| Linear::new(&context.scope.pp(name), input, output, true);
    Ok(Box::new(NonLocal {
        theta: layer("theta", dim, inner_dim)?,
        phi: layer("phi", dim, inner_dim)?,
        g: layer("g", dim, inner_dim)?,
        w: layer("w", inner_dim, dim)?,
        out_proj: layer("out_proj", dim, dim)?,
        main: context.main_modality(config.main_modality.as_deref())?,
    }))
}

/// *Non-local Neural Networks* (Wang et al., 2018, <https://arxiv.org/abs/1711.07971>), named as in the paper. Where
/// the main modality is missing, the mean of the others' values replaces its output.
struct NonLocal {
    theta: Linear,
    phi: Linear,
    g: Linear,
    w: Linear,
    out_proj: Linear,
    main: usize,
}

impl FusionOperator for NonLocal {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let main = &inputs[self.main];
        let all = Tensor::cat(&inputs.iter().map(|p| &p.values).collect::<Vec<_>>(), 1)?; // [rows, lengths, dim]
        let masks = inputs.iter().map(ModalityInput::position_mask).collect::<Result<Vec<_>>>()?;
        let mask = Tensor::cat(&masks.iter().collect::<Vec<_>>(), 1)?; // [rows, lengths]
        let scores =
            self.theta.forward(&main.values, train)?.matmul(&self.phi.forward(&all, train)?.transpose(1, 2)?)?;
        let scores = scores.masked_fill(&mask.logical_not()?.unsqueeze(1)?, scores.dtype()?.mask_value())?;
        let values = self.g.forward(&all, train)?;
        let attended = scores.softmax(2)?.matmul(&values)?; // [rows, main length, inner_dim]
        let x = main.values.add(&self.w.forward(&attended, train)?)?;
        let main_output = mean_pool(&x, main)?;
        let mean_value = Features::new(values, Some(mask))?.pool(Pooling::Mean)?;
        let fallback = self.w.forward(&mean_value, train)?.mul(&any_present(inputs)?)?;
        let present = main.present_column()?;
        let mixed = main_output.mul(&present)?.add(&fallback.mul(&present.neg()?.add_scalar(1.0)?)?)?;
        Ok(OperatorOutput::new(self.out_proj.forward(&mixed, train)?))
    }
}
