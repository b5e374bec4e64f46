//! Rotary position embeddings of a decoder, with one or three position axes.
//!
//! *RoFormer: Enhanced Transformer with Rotary Position Embedding* (Su et al., 2021),
//! <https://arxiv.org/abs/2104.09864>; three axes as in *Qwen2-VL* (Wang et al., 2024),
//! <https://arxiv.org/abs/2409.12191>.

use crate::{DType, Result, Tensor};

/// Rotary position embeddings.
#[derive(Debug, Clone)]
pub struct RotaryConfig {
    /// Dimension of a head.
    pub head_dim: i64,
    /// Inverse frequency of each pair, `1 / base^(2 i / head_dim)` unless the checkpoint rescales them.
    pub inv_freq: Vec<f32>,
    /// How many pairs belong to time, row and column (`mrope_section`); absent for one-dimensional positions.
    pub mrope_section: Option<[i64; 3]>,
}

impl RotaryConfig {
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
