//! Whether two modalities share a space: the gap between them (Liang 2022), alignment and uniformity (Wang 2020).

use crate::{Error, Result};
use mm_core::{DType, Tensor};

/// What [`gap`] finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// Distance of the two modalities' centres on the unit sphere: 0 when they lie together, up to 2.
    pub centroid_distance: f64,
    /// Mean squared distance of partners.
    pub alignment: f64,
    /// Logarithm of the mean Gaussian potential of all pairs of both, scale 2: lower is more evenly spread.
    pub uniformity: f64,
}

/// The gap between embeddings `[rows, width]` whose rows belong together.
pub fn gap(a: &Tensor, b: &Tensor) -> Result<Gap> {
    if a.shape() != b.shape() || a.rank() != 2 || a.size(0)? < 2 {
        return Err(Error::Features {
            what: "gap",
            found: format!("{:?} and {:?}", a.shape(), b.shape()),
            wanted: "two sets [rows, width] of one shape with at least two rows".into(),
        });
    }
    let (a, b) = (a.normalize()?.to_dtype(DType::F64)?, b.normalize()?.to_dtype(DType::F64)?);
    let centre = |x: &Tensor| x.mean_dims(&[0], false);
    let apart = a.sub(&b)?.pow(2.0)?.sum_dims(&[1], false)?;
    let both = Tensor::cat(&[&a, &b], 0)?;
    let rows = both.size(0)?;
    // On the unit sphere the squared distance is 2 − 2 cos.
    let squared = both.matmul(&both.transpose(0, 1)?)?.mul_scalar(-2.0)?.add_scalar(2.0)?;
    let potential = squared.mul_scalar(-2.0)?.exp()?;
    let off_diagonal =
        (potential.sum()?.to_f64()? - potential.diagonal()?.sum()?.to_f64()?) / (rows * (rows - 1)) as f64;
    Ok(Gap {
        centroid_distance: centre(&a)?.sub(&centre(&b)?)?.norm(-1, false)?.to_f64()?,
        alignment: apart.mean()?.to_f64()?,
        uniformity: off_diagonal.ln(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_sets_are_two_apart_and_equal_ones_not_at_all() {
        let a = Tensor::from_vec(&[1f32, 0.0, 1.0, 0.0], &[2, 2]).unwrap();
        let far = gap(&a, &a.neg().unwrap()).unwrap();
        assert!((far.centroid_distance - 2.0).abs() < 1e-9 && (far.alignment - 4.0).abs() < 1e-9);
        let near = gap(&a, &a).unwrap();
        assert!(near.centroid_distance < 1e-9 && near.alignment < 1e-9 && near.uniformity.abs() < 1e-9);
    }
}
