//! Diversity of generated samples, which reveals mode collapse.

use mm_core::{Result, Tensor};

/// The ratio of the mean pairwise distances of generated and real samples: near 1 for diverse samples, near 0 after
/// mode collapse.
pub(super) fn diversity_ratio(generated: &Tensor, real: &Tensor) -> Result<f64> {
    Ok(mean_pairwise_distance(generated)? / mean_pairwise_distance(real)?.max(1e-9))
}

/// The mean Euclidean distance between different rows.
fn mean_pairwise_distance(x: &Tensor) -> Result<f64> {
    let flat = x.detach()?.flatten(1, -1)?;
    let rows = flat.size(0)? as f64;
    if rows < 2.0 {
        return Ok(0.0);
    }
    Ok(flat.cdist(&flat)?.sum()?.to_f64()? / (rows * (rows - 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device};

    #[test]
    fn equal_rows_have_distance_zero() {
        let equal = Tensor::ones(&[5, 3], DType::F32, Device::Cpu).unwrap();
        assert!(mean_pairwise_distance(&equal).unwrap() < 1e-6);
        let pair = Tensor::from_vec(&[0f32, 0.0, 3.0, 4.0], &[2, 2]).unwrap();
        assert!((mean_pairwise_distance(&pair).unwrap() - 5.0).abs() < 1e-5);
    }
}
