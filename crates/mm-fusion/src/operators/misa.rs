//! Modality-invariant and modality-specific representations.

use super::layers::{BLOCK_DROPOUT, pre_norm_block};
use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{
    DType, Module, Tensor,
    nn::{ForwardArgs, Linear, Mask, Transformer, TransformerConfig},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "misa",
    description: "modality-invariant and modality-specific representations (MISA, Hazarika et al. 2020)",
    takes_sequences: false,
    build,
};

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MisaConfig {
    /// Weight of the central moment discrepancy between the shared representations.
    similarity_weight: f64,
    /// Weight of the overlap of shared and private representations.
    difference_weight: f64,
    /// Weight of the reconstruction error.
    reconstruction_weight: f64,
    /// Attention heads of the transformer over the representations.
    num_heads: i64,
}

impl Default for MisaConfig {
    fn default() -> Self {
        Self { similarity_weight: 0.3, difference_weight: 0.1, reconstruction_weight: 0.3, num_heads: 2 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let config: MisaConfig = context.options()?;
    let input_dim = context.equal_input_dims(SPEC.kind)?;
    let (scope, dim) = (&context.scope, context.dim);
    let (mut private, mut reconstruct) = (Vec::new(), Vec::new());
    for index in 0..context.input_dims.len() {
        private.push(Linear::new(&scope.pp("private").pp(index), input_dim, dim, true)?);
        reconstruct.push(Linear::new(&scope.pp("recon").pp(index), dim, input_dim, true)?);
    }
    let block = pre_norm_block(dim, config.num_heads, BLOCK_DROPOUT);
    let transformer = TransformerConfig::new(1, block);
    Ok(Box::new(Misa {
        private,
        shared: Linear::new(&scope.pp("shared"), input_dim, dim, true)?,
        reconstruct,
        transformer: Transformer::new(&scope.pp("transformer"), &transformer)?,
        out_proj: Linear::new(&scope.pp("fusion"), 2 * dim * context.input_dims.len() as i64, dim, true)?,
        config,
    }))
}

/// Each modality is encoded twice: in a space shared by all modalities, and in a private one; a transformer fuses all
/// representations.
///
/// *MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis* (Hazarika et al., 2020,
/// <https://arxiv.org/abs/2005.03545>).
struct Misa {
    private: Vec<Linear>,
    shared: Linear,
    reconstruct: Vec<Linear>,
    transformer: Transformer,
    out_proj: Linear,
    config: MisaConfig,
}

impl FusionOperator for Misa {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let (mut private, mut shared) = (Vec::new(), Vec::new());
        for (input, layer) in inputs.iter().zip(&self.private) {
            let present = input.present_column()?;
            private.push(layer.forward(&input.values, train)?.sigmoid()?.mul(&present)?);
            shared.push(self.shared.forward(&input.values, train)?.sigmoid()?.mul(&present)?);
        }
        let aux_loss = if train { Some(self.loss(inputs, &private, &shared)?) } else { None };
        let all: Vec<&Tensor> = private.iter().chain(&shared).collect();
        let x = Tensor::stack(&all, 1)?; // [rows, 2 · modalities, dim]
        let present: Vec<&Tensor> = inputs.iter().chain(inputs).map(|p| &p.present).collect();
        let mask = Tensor::stack(&present, 1)?.gt_scalar(0.5)?; // [rows, 2 · modalities]
        let padding = Mask::Padding(mask.clone());
        let args = ForwardArgs { mask: Some(&padding), train, ..ForwardArgs::default() };
        let x = self.transformer.forward(&x, args)?;
        let x = x.mul(&mask.unsqueeze(-1)?.to_dtype(DType::F32)?)?.flatten(1, 2)?;
        Ok(OperatorOutput { aux_loss, ..OperatorOutput::new(self.out_proj.forward(&x, train)?) })
    }

    fn depends_on_batch(&self) -> bool {
        true
    }
}

impl Misa {
    fn loss(&self, inputs: &[ModalityInput], private: &[Tensor], shared: &[Tensor]) -> Result<Tensor> {
        let count = inputs.len();
        let mut total = Tensor::zeros(&[], DType::F32, private[0].device())?;
        let MisaConfig { similarity_weight, difference_weight, reconstruction_weight, .. } = self.config;
        // Rows that have both modalities; moments need at least two.
        let common_rows = |a: usize, b: usize| -> Result<Option<Tensor>> {
            let rows = inputs[a].present.mul(&inputs[b].present)?.gt_scalar(0.5)?.nonzero()?;
            Ok((rows.size(0)? > 1).then_some(rows))
        };
        let pairs = (count * (count - 1) / 2).max(1) as f64;
        for a in 0..count {
            for b in a..count {
                let Some(rows) = common_rows(a, b)? else { continue };
                let pick = |x: &Tensor| x.index_select(0, &rows);
                if a == b {
                    let difference = overlap(&pick(&private[a])?, &pick(&shared[a])?)?;
                    total = total.add(&difference.mul_scalar(difference_weight)?)?;
                    let code = pick(&private[a])?.add(&pick(&shared[a])?)?;
                    let error = self.reconstruct[a].forward(&code, true)?.sub(&pick(&inputs[a].values)?.detach()?)?;
                    let error = error.pow(2.0)?.mean()?;
                    total = total.add(&error.mul_scalar(reconstruction_weight / count as f64)?)?;
                } else {
                    let similarity = central_moment_discrepancy(&pick(&shared[a])?, &pick(&shared[b])?)?;
                    total = total.add(&similarity.mul_scalar(similarity_weight / pairs)?)?;
                    let difference = overlap(&pick(&private[a])?, &pick(&private[b])?)?;
                    total = total.add(&difference.mul_scalar(difference_weight)?)?;
                }
            }
        }
        Ok(total)
    }
}

/// Highest central moment that is compared.
const MAX_MOMENT: i32 = 5;

/// Central moment discrepancy of `a` and `b` `[rows, dim]` with values in (0, 1).
///
/// *Central Moment Discrepancy (CMD) for Domain-Invariant Representation Learning* (Zellinger et al., 2017,
/// <https://arxiv.org/abs/1702.08811>).
fn central_moment_discrepancy(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (mean_a, mean_b) = (a.mean_dim(&[0], true)?, b.mean_dim(&[0], true)?);
    // The epsilon keeps the gradient of the norm finite at zero.
    let norm = |x: Tensor| -> Result<Tensor> { Ok(x.pow(2.0)?.sum()?.add_scalar(1e-12)?.sqrt()?) };
    let mut sum = norm(mean_a.sub(&mean_b)?)?;
    let (centered_a, centered_b) = (a.sub(&mean_a)?, b.sub(&mean_b)?);
    let (mut power_a, mut power_b) = (centered_a.clone(), centered_b.clone());
    for _ in 2..=MAX_MOMENT {
        (power_a, power_b) = (power_a.mul(&centered_a)?, power_b.mul(&centered_b)?);
        sum = sum.add(&norm(power_a.mean_dim(&[0], false)?.sub(&power_b.mean_dim(&[0], false)?)?)?)?;
    }
    Ok(sum)
}

/// Mean squared entry of `Aᵀ B` for centered, normalized rows (soft orthogonality, as in the authors' code).
fn overlap(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let normalize = |x: &Tensor| -> Result<Tensor> { Ok(x.sub(&x.mean_dim(&[0], true)?)?.normalize()?) };
    Ok(normalize(a)?.transpose(0, 1)?.matmul(&normalize(b)?)?.pow(2.0)?.mean()?)
}
