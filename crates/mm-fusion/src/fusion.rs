//! The fusion module: input preparation followed by an operator.

use crate::{
    Error, Result,
    config::FusionConfig,
    inputs::{InputConfig, Inputs},
    operator::{FusionOperator, OperatorContext},
    registry::operator_spec,
};
use mm_core::{FeatureSet, Features, Modality, Scope, Tensor};
use std::collections::BTreeMap;

/// Output of a [`Fusion`].
#[derive(Debug)]
pub struct FusionOutput {
    /// Fused features `[batch, length, dim]`; length 1 for operators on vectors.
    pub features: Features,
    /// Auxiliary loss of the operator and of learned imputation, a scalar to be added to the task's loss; `None` if
    /// there is none.
    pub aux_loss: Option<Tensor>,
    /// Weight of each modality in each row, `[batch]` each; empty if the operator has no such weights.
    pub modality_weights: BTreeMap<Modality, Tensor>,
}

/// Fuses features of several modalities, any of which may be missing in any row.
pub struct Fusion {
    inputs: Inputs,
    operator: Box<dyn FusionOperator>,
    dim: i64,
}

impl Fusion {
    /// Builds the fusion of modalities with these feature dimensions; its parameters are created under `scope`.
    ///
    /// # Errors
    /// When there is no modality, a setting is out of range, or the operator is unknown or cannot be built for these
    /// dimensions.
    pub fn new(scope: &Scope<'_>, config: &FusionConfig, dims: &[(Modality, i64)]) -> Result<Self> {
        if dims.is_empty() || config.dim < 1 {
            let found = format!("{} modalities and dim {}", dims.len(), config.dim);
            return Err(Error::config("fusion", found, "at least one modality and a positive dim"));
        }
        for (name, rate) in [("dropout", config.dropout), ("modality_dropout", config.modality_dropout)] {
            if !(0.0..1.0).contains(&rate) {
                return Err(Error::config(format!("fusion.{name}"), rate, "a probability in [0, 1)"));
            }
        }
        let spec = operator_spec(&config.operator.kind)?;
        if !config.project && spec.takes_sequences && dims.iter().any(|(_, dim)| *dim != config.dim) {
            let found = format!("features of dimensions {:?}", dims.iter().map(|d| d.1).collect::<Vec<_>>());
            let expected = format!("dimension {} for each modality, or project = true", config.dim);
            return Err(Error::config("fusion.project", found, expected));
        }
        let mut dims = dims.to_vec();
        dims.sort();
        let inputs = Inputs::new(scope, InputConfig::new(config, spec.takes_sequences), &dims)?;
        let modalities: Vec<Modality> = dims.into_iter().map(|(modality, _)| modality).collect();
        let operator = (spec.build)(&OperatorContext {
            scope: scope.pp("operator"),
            modalities: &modalities,
            input_dims: &inputs.dims(),
            dim: config.dim,
            options: &config.operator.options,
        })?;
        Ok(Self { inputs, operator, dim: config.dim })
    }

    /// Fuses features `[batch, length, dim of the modality]`; each row may lack any modality. A row's output does not
    /// depend on the other rows.
    ///
    /// # Errors
    /// When none of the fusion's modalities is in the set, or the features do not fit the operator.
    pub fn fuse(&self, set: &FeatureSet, train: bool) -> Result<FusionOutput> {
        let prepared = self.inputs.prepare(set, train)?;
        let output = self.operator.forward(&prepared.inputs, train)?;
        let aux_loss = match (prepared.aux_loss, output.aux_loss) {
            (Some(a), Some(b)) => Some(a.add(&b)?),
            (a, b) => a.or(b),
        };
        let modality_weights = self.inputs.modalities().cloned().zip(output.modality_weights).collect();
        let features = match prepared.positions {
            Some(positions) => positions.scatter(&output.values)?,
            None if output.values.rank() == 2 => Features::from_pooled(&output.values)?,
            None => Features::new(output.values, output.mask)?,
        };
        Ok(FusionOutput { features, aux_loss, modality_weights })
    }

    /// Whether its loss, or a buffer that it updates in training, is a function of all rows of a batch and not a mean
    /// over them.
    pub fn depends_on_batch(&self) -> bool {
        self.inputs.depends_on_batch() || self.operator.depends_on_batch()
    }

    /// Dimension of the fused features.
    pub fn dim(&self) -> i64 {
        self.dim
    }
}
