//! Positions of aligned sequences as rows.

use crate::{Error, Result};
use mm_core::{DType, FeatureSet, Features, Modality, Tensor};

/// The valid positions of a batch of aligned sequences.
pub(crate) struct Positions {
    batch: i64,
    length: i64,
    /// Positions that any modality has, `[batch, length]` bool.
    mask: Tensor,
    /// Their flat indices in `batch · length`, `[positions]`.
    index: Tensor,
}

impl Positions {
    /// The union of all modalities' valid positions; none when no modality is in the set.
    pub(crate) fn find<'a>(set: &FeatureSet, modalities: impl Iterator<Item = &'a Modality>) -> Result<Option<Self>> {
        let (mut shape, mut mask): (Option<(i64, i64)>, Option<Tensor>) = (None, None);
        for modality in modalities {
            let Some(features) = set.get(modality) else { continue };
            let found = (features.values.size(0)?, features.values.size(1)?);
            if *shape.get_or_insert(found) != found {
                let expected = format!("{shape:?} as for the other modalities (fusion.aligned = true)");
                return Err(Error::config(format!("batch and length of {modality}"), format!("{found:?}"), expected));
            }
            let valid = match &features.mask {
                Some(mask) => mask.clone(),
                None => Tensor::ones(&[found.0, found.1], DType::Bool, features.values.device())?,
            };
            mask = Some(match mask {
                Some(mask) => mask.logical_or(&valid)?,
                None => valid,
            });
        }
        let (Some((batch, length)), Some(mask)) = (shape, mask) else { return Ok(None) };
        let index = mask.reshape(&[-1])?.nonzero()?;
        Ok(Some(Self { batch, length, mask, index }))
    }

    /// Number of positions.
    pub(crate) fn count(&self) -> Result<i64> {
        Ok(self.index.size(0)?)
    }

    /// One modality's features at these positions `[positions, dim]` and their presence `[positions]`, given presence
    /// per row `[batch]`.
    pub(crate) fn gather(&self, features: &Features, present: &Tensor) -> Result<(Tensor, Tensor)> {
        let values = features.values.flatten(0, 1)?.index_select(0, &self.index)?;
        let mut valid = present.unsqueeze(1)?.expand(&[self.batch, self.length])?;
        if let Some(mask) = &features.mask {
            valid = valid.mul(&mask.to_dtype(DType::F32)?)?;
        }
        Ok((values, valid.reshape(&[-1])?.index_select(0, &self.index)?))
    }

    /// Values `[positions, dim]` back as sequences `[batch, length, dim]`; padding is zero.
    pub(crate) fn scatter(&self, values: &Tensor) -> Result<Features> {
        let dim = values.size(1)?;
        let index = self.index.unsqueeze(1)?.expand(&[self.count()?, dim])?;
        let flat = Tensor::zeros(&[self.batch * self.length, dim], values.dtype()?, values.device())?;
        let sequences = flat.scatter_add(0, &index, values)?.reshape(&[self.batch, self.length, dim])?;
        Ok(Features::new(sequences, Some(self.mask.clone()))?)
    }
}
