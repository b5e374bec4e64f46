//! Preparation of an operator's inputs: each modality's features are projected to one dimension, modalities are dropped
//! at random during training, and missing ones are replaced.

mod missing;
mod modality_dropout;
mod positions;

use crate::{
    Error, Result,
    config::{FusionConfig, MissingModality},
};
use missing::Replacement;
use mm_core::{
    DType, Device, FeatureSet, Features, Modality, Module, Pooling, Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};
pub(crate) use positions::Positions;

/// One modality as an operator receives it.
#[derive(Debug, Clone)]
pub struct ModalityInput {
    /// Features `[rows, dim]`, or `[rows, length, dim]` for operators on sequences; zeros where a row has none.
    pub values: Tensor,
    /// Valid positions `[rows, length]` bool, for operators on sequences.
    pub mask: Option<Tensor>,
    /// `[rows]` float32, 1 where the row has the modality.
    pub present: Tensor,
}

impl ModalityInput {
    /// Presence as a column `[rows, 1]`.
    pub fn present_column(&self) -> Result<Tensor> {
        Ok(self.present.unsqueeze(1)?)
    }

    /// Valid positions `[rows, length]` bool; all true if there is no mask.
    pub fn position_mask(&self) -> Result<Tensor> {
        match &self.mask {
            Some(mask) => Ok(mask.clone()),
            None => Ok(Tensor::ones(&self.values.shape()[..2], DType::Bool, self.values.device())?),
        }
    }

    /// Mean over the valid positions, `[rows, dim]`.
    pub fn mean_pooled(&self) -> Result<Tensor> {
        if self.values.rank() == 2 {
            return Ok(self.values.clone());
        }
        Ok(Features::new(self.values.clone(), self.mask.clone())?.pool(Pooling::Mean)?)
    }
}

/// All modalities of a batch, in the order of their names.
pub(crate) struct PreparedInputs {
    pub(crate) inputs: Vec<ModalityInput>,
    /// Loss of the learned imputation.
    pub(crate) aux_loss: Option<Tensor>,
    /// Present where rows are the positions of aligned sequences.
    pub(crate) positions: Option<Positions>,
}

/// Settings of [`Inputs`].
#[derive(Clone, Copy)]
pub(crate) struct InputConfig {
    dim: i64,
    dropout: f64,
    missing: MissingModality,
    modality_dropout: f64,
    project: bool,
    aligned: bool,
    takes_sequences: bool,
}

impl InputConfig {
    pub(crate) fn new(config: &FusionConfig, takes_sequences: bool) -> Self {
        let FusionConfig { dim, dropout, missing, modality_dropout, project, aligned, .. } = *config;
        Self { dim, dropout, missing, modality_dropout, project, aligned, takes_sequences }
    }
}

/// The layers of one modality.
struct ModalityProjection {
    modality: Modality,
    projection: Option<(Linear, Norm)>,
    replacement: Replacement,
    input_dim: i64,
    dim: i64,
}

impl ModalityProjection {
    fn new(scope: &Scope<'_>, config: InputConfig, modality: &Modality, input_dim: i64) -> Result<Self> {
        let scope = scope.pp("inputs").pp(modality);
        let dim = if config.project { config.dim } else { input_dim };
        let projection = if config.project {
            let linear = Linear::new(&scope.pp("projection"), input_dim, dim, true)?;
            Some((linear, Norm::new(&scope.pp("norm"), dim, NormConfig::default())?))
        } else {
            None
        };
        let replacement = Replacement::new(&scope, config.missing, dim, config.project)?;
        Ok(Self { modality: modality.clone(), projection, replacement, input_dim, dim })
    }
}

/// Features of one modality before projection.
struct RawInput {
    values: Tensor,
    mask: Option<Tensor>,
    present: Tensor,
}

pub(crate) struct Inputs {
    modalities: Vec<ModalityProjection>,
    config: InputConfig,
}

impl Inputs {
    pub(crate) fn new(scope: &Scope<'_>, config: InputConfig, dims: &[(Modality, i64)]) -> Result<Self> {
        let modalities = dims.iter().map(|(modality, dim)| ModalityProjection::new(scope, config, modality, *dim));
        Ok(Self { modalities: modalities.collect::<Result<_>>()?, config })
    }

    pub(crate) fn modalities(&self) -> impl Iterator<Item = &Modality> {
        self.modalities.iter().map(|m| &m.modality)
    }

    /// Whether the replacement of missing modalities has a loss, or a running mean.
    pub(crate) fn depends_on_batch(&self) -> bool {
        matches!(self.config.missing, MissingModality::Mean | MissingModality::LearnedImputation)
    }

    pub(crate) fn dims(&self) -> Vec<i64> {
        self.modalities.iter().map(|m| m.dim).collect()
    }

    pub(crate) fn prepare(&self, set: &FeatureSet, train: bool) -> Result<PreparedInputs> {
        let device = self.device(set)?;
        let positions = if self.config.aligned && !self.config.takes_sequences {
            Positions::find(set, self.modalities())?
        } else {
            None
        };
        let rows = positions.as_ref().map_or_else(|| Ok(set.rows()), Positions::count)?;
        let mut inputs = Vec::new();
        for modality in &self.modalities {
            let raw = match set.get(&modality.modality).zip(set.present(&modality.modality)) {
                Some((features, present)) => self.raw(features, present, positions.as_ref())?,
                None => self.absent(modality.input_dim, rows, device)?,
            };
            inputs.push(self.project(modality, raw, train)?);
        }
        if train && self.config.modality_dropout > 0.0 {
            modality_dropout::apply(&mut inputs, self.config.modality_dropout)?;
        }
        let replacements: Vec<&Replacement> = self.modalities.iter().map(|m| &m.replacement).collect();
        let aux_loss = missing::replace(&mut inputs, self.config.missing, &replacements, train)?;
        Ok(PreparedInputs { inputs, aux_loss, positions })
    }

    fn device(&self, set: &FeatureSet) -> Result<Device> {
        let features = self.modalities().find_map(|m| set.get(m));
        features.map(|f| f.values.device()).ok_or_else(|| {
            let found = set.modalities().map(Modality::name).collect::<Vec<_>>().join(", ");
            let expected = self.modalities().map(Modality::name).collect::<Vec<_>>().join(", ");
            Error::config("fusion", format!("the modalities [{found}]"), format!("at least one of [{expected}]"))
        })
    }

    fn raw(&self, features: &Features, present: &Tensor, positions: Option<&Positions>) -> Result<RawInput> {
        let present = present.to_dtype(DType::F32)?;
        if let Some(positions) = positions {
            let (values, present) = positions.gather(features, &present)?;
            return Ok(RawInput { values, mask: None, present });
        }
        if !self.config.takes_sequences {
            return Ok(RawInput { values: features.pool(Pooling::Mean)?, mask: None, present });
        }
        let (rows, length) = (features.values.size(0)?, features.values.size(1)?);
        let mut mask = present.gt_scalar(0.5)?.unsqueeze(1)?.expand(&[rows, length])?;
        if let Some(valid) = &features.mask {
            mask = mask.logical_and(valid)?;
        }
        // A row in which every position is padding lacks the modality.
        let any = mask.to_dtype(DType::F32)?.amax(1, false)?;
        Ok(RawInput { values: features.values.clone(), present: present.mul(&any)?, mask: Some(mask) })
    }

    /// A modality that no row of the batch has.
    fn absent(&self, input_dim: i64, rows: i64, device: Device) -> Result<RawInput> {
        let present = Tensor::zeros(&[rows], DType::F32, device)?;
        if self.config.takes_sequences {
            let values = Tensor::zeros(&[rows, 1, input_dim], DType::F32, device)?;
            return Ok(RawInput { values, mask: Some(Tensor::zeros(&[rows, 1], DType::Bool, device)?), present });
        }
        Ok(RawInput { values: Tensor::zeros(&[rows, input_dim], DType::F32, device)?, mask: None, present })
    }

    fn project(&self, modality: &ModalityProjection, raw: RawInput, train: bool) -> Result<ModalityInput> {
        let RawInput { values, mask, present } = raw;
        let valid = match &mask {
            Some(mask) => mask.unsqueeze(-1)?,
            None => present.gt_scalar(0.5)?.unsqueeze(1)?,
        };
        // Values at padded positions and in rows without the modality (which may be NaN) must not propagate.
        let values = values.where_cond(&valid, &Tensor::zeros(&[1], DType::F32, present.device())?)?;
        let values = match &modality.projection {
            Some((linear, norm)) => norm.forward(&linear.forward(&values, train)?, train)?.gelu()?,
            None => values,
        };
        let values = values.dropout(self.config.dropout, train)?.mul(&valid.to_dtype(DType::F32)?)?;
        Ok(ModalityInput { values, mask, present })
    }
}
