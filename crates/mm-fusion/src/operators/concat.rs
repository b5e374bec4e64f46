//! Concatenation of all modalities.

use super::layers::{concat_dim, concat_with_presence};
use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{Module, nn::Linear};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "concat",
    description: "concatenation, then one linear layer (or two)",
    takes_sequences: false,
    build,
};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConcatConfig {
    /// Dimension of a hidden layer with ReLU; none if 0.
    hidden_dim: i64,
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let ConcatConfig { hidden_dim } = context.options()?;
    let scope = &context.scope;
    let input_dim = concat_dim(context.input_dims);
    let fc1 = (hidden_dim > 0).then(|| Linear::new(&scope.pp("fc1"), input_dim, hidden_dim, true)).transpose()?;
    let fc2_input_dim = if hidden_dim > 0 { hidden_dim } else { input_dim };
    Ok(Box::new(Concat { fc1, fc2: Linear::new(&scope.pp("fc2"), fc2_input_dim, context.dim, true)? }))
}

struct Concat {
    fc1: Option<Linear>,
    fc2: Linear,
}

impl FusionOperator for Concat {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let mut x = concat_with_presence(inputs)?;
        if let Some(fc1) = &self.fc1 {
            x = fc1.forward(&x, train)?.relu()?; // [rows, hidden_dim]
        }
        Ok(OperatorOutput::new(self.fc2.forward(&x, train)?))
    }
}
