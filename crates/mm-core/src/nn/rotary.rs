//! Rotary position embeddings, with one or three position axes.
//!
//! *RoFormer: Enhanced Transformer with Rotary Position Embedding* (Su et al., 2021),
//! <https://arxiv.org/abs/2104.09864>; three axes as in *Qwen2-VL* (Wang et al., 2024),
//! <https://arxiv.org/abs/2409.12191>.

use crate::{DType, Result, Tensor};

/// Frequencies of rotary position embeddings. The first half of a head's dimensions is rotated against the second half.
#[derive(Debug, Clone)]
pub struct RotaryEmbedding {
    /// Dimension of a head.
    pub head_dim: i64,
    /// Inverse frequency of each pair, `1 / base^(2 i / head_dim)` unless the checkpoint rescales them.
    pub inv_freq: Vec<f32>,
    /// Numbers of frequency pairs for time, row and column (`mrope_section`); absent for one-dimensional positions.
    pub mrope_section: Option<[i64; 3]>,
}

impl RotaryEmbedding {
    /// One-dimensional positions with wavelengths that grow with powers of `base`.
    pub fn new(head_dim: i64, base: f64) -> Self {
        let inv_freq = (0..head_dim / 2).map(|i| base.powf(-2.0 * i as f64 / head_dim as f64) as f32).collect();
        Self { head_dim, inv_freq, mrope_section: None }
    }

    /// Cosines and sines `[length, head_dim / 2]` for positions `[length]`, or for positions of time, row and column
    /// `[3, length]`.
    pub fn cos_sin(&self, positions: &Tensor, dtype: DType) -> Result<(Tensor, Tensor)> {
        let inv_freq = Tensor::from_slice(&self.inv_freq)?.to_device(positions.device())?;
        let angles = positions.to_dtype(DType::F32)?.unsqueeze(-1)?.mul(&inv_freq)?; // [(3,) length, pairs]
        let angles = match (&self.mrope_section, angles.rank()) {
            (Some(sections), 3) => {
                let mut parts = Vec::new();
                let mut start = 0;
                for (axis, pairs) in sections.iter().enumerate() {
                    parts.push(angles.select(0, axis as i64)?.narrow(1, start, *pairs)?);
                    start += pairs;
                }
                Tensor::cat(&parts.iter().collect::<Vec<_>>(), 1)?
            }
            _ => angles,
        };
        Ok((angles.cos()?.to_dtype(dtype)?, angles.sin()?.to_dtype(dtype)?))
    }
}

/// Rotates `x` `[…, length, head_dim]` by angles whose cosines and sines broadcast to `[…, length, head_dim / 2]`.
pub fn apply_rotary(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
    let half = x.size(-1)? / 2;
    let (a, b) = (x.narrow(-1, 0, half)?, x.narrow(-1, half, half)?);
    Tensor::cat(&[&a.mul(cos)?.sub(&b.mul(sin)?)?, &b.mul(cos)?.add(&a.mul(sin)?)?], -1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn scores_depend_only_on_the_distance() {
        let rotary = RotaryEmbedding::new(8, 10_000.0);
        let random = || Tensor::randn(&[1, 1, 1, 8], DType::F32, Device::Cpu).unwrap();
        let (q, k) = (random(), random());
        let rotate = |x: &Tensor, position: i64| {
            let positions = Tensor::arange(position, position + 1, Device::Cpu).unwrap();
            let (cos, sin) = rotary.cos_sin(&positions, DType::F32).unwrap();
            apply_rotary(x, &cos, &sin).unwrap()
        };
        let score = |a, b| rotate(&q, a).mul(&rotate(&k, b)).unwrap().sum().unwrap().to_f64().unwrap();
        assert!((score(3, 5) - score(103, 105)).abs() < 1e-4);
        assert!((score(3, 5) - score(3, 9)).abs() > 1e-6);
    }
}
