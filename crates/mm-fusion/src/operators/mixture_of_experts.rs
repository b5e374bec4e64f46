//! Mixture of experts over modalities.

use super::layers::{concat_dim, concat_with_presence};
use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{
    Module, Scope, Tensor,
    nn::{Activation, Linear, Mlp, MlpConfig},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "mixture_of_experts",
    description: "mixture of experts, one per modality and one for all, with a router (Jacobs et al. 1991, Shazeer et al. 2017)",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MixtureOfExpertsConfig {
    /// Weight of the load-balancing loss.
    load_balancing_weight: f64,
}

impl Default for MixtureOfExpertsConfig {
    fn default() -> Self {
        Self { load_balancing_weight: 0.01 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let MixtureOfExpertsConfig { load_balancing_weight } = context.options()?;
    let (scope, dim) = (&context.scope, context.dim);
    let joint_dim = concat_dim(context.input_dims);
    let mut unimodal = Vec::new();
    for (index, input_dim) in context.input_dims.iter().enumerate() {
        unimodal.push(Expert::new(&scope.pp("experts").pp(index), *input_dim, dim)?);
    }
    Ok(Box::new(MixtureOfExperts {
        unimodal,
        joint: Expert::new(&scope.pp("experts").pp("all"), joint_dim, dim)?,
        router: Linear::new(&scope.pp("router"), joint_dim, context.input_dims.len() as i64 + 1, true)?,
        load_balancing_weight,
    }))
}

/// A linear layer and a residual MLP.
struct Expert {
    fc: Linear,
    mlp: Mlp,
}

impl Expert {
    fn new(scope: &Scope<'_>, input_dim: i64, dim: i64) -> Result<Self> {
        let fc = Linear::new(&scope.pp("fc"), input_dim, dim, true)?;
        Ok(Self { fc, mlp: Mlp::new(&scope.pp("mlp"), dim, &MlpConfig::new(dim, Activation::Gelu))? })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.fc.forward(x, train)?;
        Ok(x.add(&self.mlp.forward(&x.gelu()?, train)?)?)
    }
}

/// A softmax gate over one expert per modality.
///
/// *Adaptive Mixtures of Local Experts* (Jacobs et al., 1991, <https://doi.org/10.1162/neco.1991.3.1.79>), with the
/// importance loss of *Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer* (Shazeer et
/// al., 2017, <https://arxiv.org/abs/1701.06538>).
struct MixtureOfExperts {
    unimodal: Vec<Expert>,
    joint: Expert,
    router: Linear,
    load_balancing_weight: f64,
}

impl MixtureOfExperts {
    /// Squared coefficient of variation of the experts' total weights; `shares` is `[rows, experts]`.
    fn load_balancing_loss(&self, shares: &Tensor) -> Result<Option<Tensor>> {
        if self.load_balancing_weight <= 0.0 {
            return Ok(None);
        }
        let importance = shares.sum_dim(&[0], false)?; // [experts]
        let mean = importance.mean()?;
        let variance = importance.sub(&mean)?.pow(2.0)?.mean()?;
        Ok(Some(variance.div(&mean.pow(2.0)?.add_scalar(1e-9)?)?.mul_scalar(self.load_balancing_weight)?))
    }
}

impl FusionOperator for MixtureOfExperts {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let joint = concat_with_presence(inputs)?;
        let mut available: Vec<Tensor> = inputs.iter().map(|p| p.present.clone()).collect();
        available.push(inputs[0].present.ones_like()?);
        let available = Tensor::stack(&available.iter().collect::<Vec<_>>(), 1)?; // [rows, experts]
        let logits = self.router.forward(&joint, train)?;
        let logits = logits.masked_fill(&available.gt_scalar(0.5)?.logical_not()?, logits.dtype()?.mask_value())?;
        let shares = logits.softmax(1)?; // [rows, experts]
        let mut outputs = Vec::new();
        for (input, expert) in inputs.iter().zip(&self.unimodal) {
            outputs.push(expert.forward(&input.values, train)?);
        }
        outputs.push(self.joint.forward(&joint, train)?);
        let outputs = Tensor::stack(&outputs.iter().collect::<Vec<_>>(), 1)?; // [rows, experts, dim]
        let values = outputs.mul(&shares.unsqueeze(-1)?)?.sum_dim(&[1], false)?;
        let modality_weights =
            (0..inputs.len() as i64).map(|index| Ok(shares.select(1, index)?)).collect::<Result<_>>()?;
        let aux_loss = self.load_balancing_loss(&shares)?;
        Ok(OperatorOutput { aux_loss, modality_weights, ..OperatorOutput::new(values) })
    }

    fn depends_on_batch(&self) -> bool {
        true
    }
}
