//! Inputs of encoders and the features that they compute.

use crate::{Device, Error, Modality, Result, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One modality of a batch as input of an encoder: token ids `[batch, length]`, pixels `[batch, channels, height,
/// width]`, a spectrogram `[batch, frames, bands]`, …, with a mask over the length where rows are padded.
#[derive(Debug, Clone)]
pub struct Input {
    /// The values, batch first.
    pub values: Tensor,
    /// `[batch, length]` bool, true for data and false for padding; none when nothing is padded.
    pub mask: Option<Tensor>,
}

impl Input {
    /// Moves values and mask to a device.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        Ok(Self {
            values: self.values.to_device(device)?,
            mask: self.mask.as_ref().map(|m| m.to_device(device)).transpose()?,
        })
    }

    /// Number of rows.
    pub fn rows(&self) -> Result<i64> {
        self.values.size(0)
    }
}

/// How a sequence of vectors is pooled into one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// Mean over the valid positions.
    #[default]
    Mean,
    /// The first position (class token).
    Cls,
    /// Maximum over the valid positions, for each dimension.
    Max,
    /// The last valid position.
    Last,
}

/// Features of one modality: values `[batch, length, dim]` and, where rows are padded, a mask `[batch, length]`.
///
/// ```
/// use mm_core::{Features, Pooling, Tensor};
/// # fn main() -> mm_core::Result<()> {
/// let values = Tensor::from_vec(&[1f32, 2.0, 3.0, 4.0, 9.0, 9.0], &[1, 3, 2])?;
/// let mask = Tensor::from_vec(&[true, true, false], &[1, 3])?;
/// let features = Features::new(values, Some(mask))?;
/// assert_eq!(features.pool(Pooling::Mean)?.to_vec::<f32>()?, [2.0, 3.0]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Features {
    /// `[batch, length, dim]`.
    pub values: Tensor,
    /// `[batch, length]` bool, true for valid positions.
    pub mask: Option<Tensor>,
}

impl Features {
    /// Features from values and a mask.
    ///
    /// # Errors
    /// If the shapes do not fit together.
    pub fn new(values: Tensor, mask: Option<Tensor>) -> Result<Self> {
        let shape = values.shape();
        if shape.len() != 3 {
            return Err(Error::shape("features", &shape, "[batch, length, dim]"));
        }
        if let Some(mask) = &mask
            && mask.shape() != shape[..2]
        {
            return Err(Error::shape("features mask", &mask.shape(), format!("{:?}", &shape[..2])));
        }
        Ok(Self { values, mask })
    }

    /// Features of length one from a pooled embedding `[batch, dim]`.
    pub fn from_pooled(embedding: &Tensor) -> Result<Self> {
        Self::new(embedding.unsqueeze(1)?, None)
    }

    /// One vector per row, `[batch, dim]`. A row whose positions are all masked gives zeros (mean, max) or its first
    /// position.
    pub fn pool(&self, pooling: Pooling) -> Result<Tensor> {
        let values = &self.values;
        match (&self.mask, pooling) {
            (_, Pooling::Cls) => values.select(1, 0),
            (None, Pooling::Mean) => values.mean_dim(&[1], false),
            (None, Pooling::Max) => values.amax(1, false),
            (None, Pooling::Last) => values.select(1, values.size(1)? - 1),
            (Some(mask), Pooling::Mean) => {
                let valid = mask.to_dtype(values.dtype()?)?.unsqueeze(-1)?; // [batch, length, 1]
                let count = valid.sum_dim(&[1], false)?.clamp_min(1e-9)?; // [batch, 1]
                values.mul(&valid)?.sum_dim(&[1], false)?.div(&count)
            }
            (Some(mask), Pooling::Max) => {
                let hidden = mask.logical_not()?.unsqueeze(-1)?; // [batch, length, 1]
                let maximum = values.masked_fill(&hidden, values.dtype()?.mask_value())?.amax(1, false)?;
                let any = mask.to_dtype(crate::DType::I64)?.amax(1, true)?.gt_scalar(0.0)?; // [batch, 1]
                maximum.masked_fill(&any.logical_not()?, 0.0)
            }
            (Some(mask), Pooling::Last) => {
                let (rows, dim) = (values.size(0)?, values.size(2)?);
                let length = values.size(1)?;
                let positions = Tensor::arange(1, length + 1, values.device())?; // [length]
                let last = mask.to_dtype(crate::DType::I64)?.mul(&positions)?.amax(1, false)?; // [batch], one-based
                let index = last
                    .add_scalar(-1.0)?
                    .clamp_min(0.0)?
                    .to_dtype(crate::DType::I64)?
                    .reshape(&[rows, 1, 1])?
                    .expand(&[rows, 1, dim])?;
                values.gather(1, &index)?.squeeze(1)
            }
        }
    }

    /// The valid positions of each row, `[positions, dim]`.
    pub fn rows(&self) -> Result<Vec<Tensor>> {
        (0..self.values.size(0)?).map(|row| self.row(row)).collect()
    }

    fn row(&self, row: i64) -> Result<Tensor> {
        let values = self.values.select(0, row)?;
        let Some(mask) = &self.mask else { return Ok(values) };
        let valid = mask.select(0, row)?.to_vec::<bool>()?;
        if valid.iter().all(|valid| *valid) {
            return Ok(values);
        }
        let positions: Vec<i64> = (0..).zip(valid).filter(|(_, valid)| *valid).map(|(position, _)| position).collect();
        values.index_select(0, &Tensor::from_vec(&positions, &[positions.len() as i64])?.to_device(values.device())?)
    }

    /// Dimension of each position.
    pub fn dim(&self) -> Result<i64> {
        self.values.size(2)
    }
}

/// Features of several modalities of one batch, and which rows have which; missing modalities are an ordinary case.
#[derive(Debug, Clone, Default)]
pub struct FeatureSet {
    rows: i64,
    entries: BTreeMap<Modality, (Features, Tensor)>,
}

impl FeatureSet {
    /// An empty set for a batch of `rows`.
    pub fn new(rows: i64) -> Self {
        Self { rows, entries: BTreeMap::new() }
    }

    /// Adds a modality whose features cover every row; `present` `[rows]` bool marks the rows that have it (none: all).
    ///
    /// # Errors
    /// If the numbers of rows differ.
    pub fn insert(&mut self, modality: Modality, features: Features, present: Option<Tensor>) -> Result<()> {
        let found = features.values.size(0)?;
        if found != self.rows {
            return Err(Error::shape(
                format!("features of {modality}"),
                &features.values.shape(),
                format!("{} rows", self.rows),
            ));
        }
        let present = match present {
            Some(p) if p.shape() == [self.rows] => p,
            Some(p) => {
                return Err(Error::shape(format!("presence of {modality}"), &p.shape(), format!("[{}]", self.rows)));
            }
            None => Tensor::ones(&[self.rows], crate::DType::Bool, features.values.device())?,
        };
        self.entries.insert(modality, (features, present));
        Ok(())
    }

    /// The features of a modality, if the batch has it.
    pub fn get(&self, modality: &Modality) -> Option<&Features> {
        self.entries.get(modality).map(|(f, _)| f)
    }

    /// Which rows have the modality, `[rows]` bool.
    pub fn present(&self, modality: &Modality) -> Option<&Tensor> {
        self.entries.get(modality).map(|(_, p)| p)
    }

    /// The modalities, sorted by name.
    pub fn modalities(&self) -> impl Iterator<Item = &Modality> {
        self.entries.keys()
    }

    /// Number of rows.
    pub fn rows(&self) -> i64 {
        self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_valid_positions_alone() {
        let values = Tensor::from_vec(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[2, 3, 1]).unwrap();
        let mask = Tensor::from_vec(&[true, true, false, false, true, true], &[2, 3]).unwrap();
        let rows = |mask| {
            let rows = Features::new(values.clone(), mask).unwrap().rows().unwrap();
            rows.iter().map(|row| row.to_vec::<f32>().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(rows(Some(mask)), [[1.0, 2.0], [5.0, 6.0]]);
        assert_eq!(rows(None), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]);
    }

    #[test]
    fn pooling_ignores_masked_positions() {
        let values =
            Tensor::from_vec(&[1f32, 5.0, 3.0, 9.0, 100.0, 100.0, 2.0, 4.0, 6.0, 8.0, 7.0, 0.0], &[2, 3, 2]).unwrap();
        let mask = Tensor::from_vec(&[true, true, false, true, true, true], &[2, 3]).unwrap();
        let features = Features::new(values.clone(), Some(mask)).unwrap();
        let pooled = |pooling| features.pool(pooling).unwrap().to_vec::<f32>().unwrap();
        assert_eq!(pooled(Pooling::Mean), [2.0, 7.0, 5.0, 4.0]);
        assert_eq!(pooled(Pooling::Max), [3.0, 9.0, 7.0, 8.0]);
        assert_eq!(pooled(Pooling::Last), [3.0, 9.0, 7.0, 0.0]);
        assert_eq!(pooled(Pooling::Cls), [1.0, 5.0, 2.0, 4.0]);
        let none = Tensor::from_vec(&[false; 6], &[2, 3]).unwrap();
        let empty = Features::new(values.clone(), Some(none)).unwrap();
        assert_eq!(empty.pool(Pooling::Mean).unwrap().to_vec::<f32>().unwrap(), [0.0; 4]);
        assert_eq!(empty.pool(Pooling::Max).unwrap().to_vec::<f32>().unwrap(), [0.0; 4]);
        assert!(Features::new(values.clone(), Some(Tensor::from_slice(&[true]).unwrap())).is_err());
        let mut set = FeatureSet::new(3);
        assert!(set.insert(Modality::TEXT, Features::new(values, None).unwrap(), None).is_err());
    }
}
