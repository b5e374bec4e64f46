//! Principal component analysis, the baseline of representation learning.

use crate::Result;
use mm_core::{DType, Tensor};

/// Principal components of rows.
pub struct Pca {
    mean: Tensor,
    /// `[components, dim]`, each of unit length.
    components: Tensor,
    /// Variance along each component.
    explained_variance: Tensor,
    /// Mean variance along the directions that are left out.
    noise_variance: f64,
}

impl Pca {
    /// Fits at most `n_components` components (fewer where the rows have fewer) to `[rows, dim]`.
    pub fn fit(x: &Tensor, n_components: i64) -> Result<Self> {
        let (rows, dim) = (x.size(0)?, x.size(1)?);
        let mean = x.mean_dim(&[0], true)?;
        let centered = x.sub(&mean)?.to_dtype(DType::F64)?;
        let retained = n_components.min(dim).min(rows - 1).max(1);
        // The smaller of the two products has the same nonzero eigenvalues.
        let use_covariance = dim <= rows;
        let product = if use_covariance {
            centered.transpose(0, 1)?.matmul(&centered)?
        } else {
            centered.matmul(&centered.transpose(0, 1)?)?
        };
        let (values, vectors) = product.eigh()?;
        let size = values.size(0)?;
        let values = values.flip(&[0])?.clamp_min(0.0)?;
        let vectors = vectors.narrow(1, size - retained, retained)?.flip(&[1])?.transpose(0, 1)?; // [retained, size]
        let components = if use_covariance { vectors } else { vectors.matmul(&centered)?.normalize()? };
        let leading = values.narrow(0, 0, retained)?;
        let degrees = (rows - 1).max(1) as f64;
        let rest = (values.sum()?.to_f64()? - leading.sum()?.to_f64()?).max(0.0);
        Ok(Self {
            mean,
            components: components.to_dtype(DType::F32)?,
            explained_variance: leading.mul_scalar(1.0 / degrees)?.to_dtype(DType::F32)?,
            noise_variance: rest / degrees / (dim - retained).max(1) as f64,
        })
    }

    /// `[rows, dim]` → `[rows, components]`.
    pub fn transform(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.sub(&self.mean)?.matmul(&self.components.transpose(0, 1)?)?)
    }

    /// `[rows, components]` → `[rows, dim]`.
    pub fn inverse_transform(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.matmul(&self.components)?.add(&self.mean)?)
    }

    /// Fills in missing values: `observed` `[rows, dim]` is 1 where `x` is known and 0 where it is to be inferred from
    /// the rest of the row. The result is the posterior mean of *Probabilistic Principal Component Analysis* (Tipping &
    /// Bishop, 1999).
    pub fn impute(&self, x: &Tensor, observed: &Tensor) -> Result<Tensor> {
        let noise = self.noise_variance.max(1e-6);
        let prior = self.explained_variance.add_scalar(1e-9)?.pow(-1.0)?.mul_scalar(noise)?;
        let prior = Tensor::eye(prior.size(0)?, DType::F32, x.device())?.mul(&prior)?; // [components, components]
        let mut rows = Vec::new();
        for row in 0..x.size(0)? {
            let mask = observed.select(0, row)?; // [dim]
            let centered = x.select(0, row)?.sub(&self.mean.squeeze(0)?)?.mul(&mask)?;
            let masked = self.components.mul(&mask)?;
            let precision = masked.matmul(&self.components.transpose(0, 1)?)?.add(&prior)?;
            let code = precision.solve(&masked.matmul(&centered.unsqueeze(1)?)?)?; // [components, 1]
            rows.push(self.inverse_transform(&code.transpose(0, 1)?)?);
        }
        Ok(Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    #[test]
    fn two_components_reconstruct_and_impute_rows_on_a_plane() {
        manual_seed(2);
        let plane = Tensor::randn(&[2, 7], DType::F32, Device::Cpu).unwrap();
        for rows in [5i64, 50] {
            let x = Tensor::randn(&[rows, 2], DType::F32, Device::Cpu).unwrap().matmul(&plane).unwrap();
            let x = x.add_scalar(3.0).unwrap();
            let pca = Pca::fit(&x, 2).unwrap();
            let max_error = |y: &Tensor| y.sub(&x).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
            assert!(max_error(&pca.inverse_transform(&pca.transform(&x).unwrap()).unwrap()) < 1e-3);
            let observed = Tensor::from_slice(&[1f32, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]).unwrap();
            let observed = observed.expand(&[rows, 7]).unwrap();
            assert!(max_error(&pca.impute(&x.mul(&observed).unwrap(), &observed).unwrap()) < 0.05);
        }
    }
}
