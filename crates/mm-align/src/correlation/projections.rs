//! The result of a linear fit.

use crate::{
    Result,
    checks::{invalid, to_f64},
    method::{Alignment, Projection},
};
use mm_core::Tensor;

/// One affine map per set into the shared space.
#[derive(Debug, Clone)]
pub struct Projections {
    /// Mean `[1, dim of the set]` and map `[dim of the set, dim]` of each set.
    pub sets: Vec<(Tensor, Tensor)>,
    /// One value per shared dimension, largest first, `[dim]`: canonical correlations (CCA), covariances (PLS) or
    /// eigenvalues (GCCA).
    pub values: Tensor,
}

impl Projections {
    /// Projects features `[rows, dim of the set]` of the set with this index to `[rows, dim]`, float64.
    ///
    /// # Errors
    /// When there is no such set, or the features have another dimension than the set that was fitted.
    pub fn project(&self, set: usize, x: &Tensor) -> Result<Tensor> {
        let Some((mean, map)) = self.sets.get(set) else {
            return Err(invalid(
                "project",
                format!("set {set}"),
                format!("0 to {}", self.sets.len().saturating_sub(1)),
            ));
        };
        let x = to_f64(x)?;
        if x.rank() != 2 || x.size(1)? != map.size(0)? {
            return Err(invalid("project", format!("{:?}", x.shape()), format!("[rows, {}]", map.size(0)?)));
        }
        Ok(x.sub(mean)?.matmul(map)?)
    }

    /// Multiplies each dimension by its value to the power `power`, so that leading dimensions count more in a cosine.
    ///
    /// *A Multi-View Embedding Space for Modeling Internet Images, Tags, and their Semantics* (Gong et al., 2014,
    /// <https://arxiv.org/abs/1212.4522>) uses the fourth power of eigenvalues.
    pub fn scale_by_values(&self, power: f64) -> Result<Self> {
        let weights = self.values.clamp_min(0.0)?.pow(power)?;
        let sets =
            self.sets.iter().map(|(mean, map)| Ok((mean.clone(), map.mul(&weights)?))).collect::<Result<Vec<_>>>()?;
        Ok(Self { sets, values: self.values.clone() })
    }

    /// Keeps the first `dim` dimensions (all where there are fewer).
    pub fn truncate(&self, dim: i64) -> Result<Self> {
        let dim = dim.clamp(1, self.values.size(0)?);
        let sets = self
            .sets
            .iter()
            .map(|(mean, map)| Ok((mean.clone(), map.narrow(1, 0, dim)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { sets, values: self.values.narrow(0, 0, dim)? })
    }

    /// The [`Alignment`] of the first two sets; its dimensions are sorted.
    ///
    /// # Errors
    /// With fewer than two sets.
    pub fn into_alignment(self) -> Result<Alignment> {
        let dim = self.values.size(0)?;
        let mut sets = self.sets.into_iter().map(|(mean, map)| Projection::affine(mean, map));
        match (sets.next(), sets.next()) {
            (Some(project_a), Some(project_b)) => Ok(Alignment { project_a, project_b, dim, sorted: true }),
            _ => Err(invalid("alignment", "fewer than two sets", "two")),
        }
    }
}
