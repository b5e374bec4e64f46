//! Where a position stands: rotary (Su 2021), `ALiBi` (Press 2022), relative buckets (T5, Raffel 2020), sinusoidal (Vaswani 2017).
//! Learned positions are an [`Embedding`](super::Embedding) added before the first block.

use crate::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

/// How attention itself knows positions.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Position {
    /// It does not; positions are added to the input, if at all.
    #[default]
    None,
    /// Queries and keys are rotated by their position.
    Rotary {
        /// Base of the wavelengths, 10,000 in the paper.
        base: f64,
    },
}

/// Rotary position: angles for a head's width.
#[derive(Debug, Clone, Copy)]
pub struct Rotary {
    /// Width of a head; even.
    pub width: i64,
    /// Base of the wavelengths.
    pub base: f64,
}

impl Rotary {
    /// Rotates `[batch, heads, length, width]` whose first position is `offset`.
    pub fn apply(&self, x: &Tensor, offset: i64) -> Result<Tensor> {
        let (length, half) = (x.size(2)?, self.width / 2);
        let device = x.device();
        let places = Tensor::arange(offset, offset + length, device)?.to_dtype(DType::F32)?.unsqueeze(1)?; // [length, 1]
        let steps: Vec<f32> = (0..half).map(|i| self.base.powf(-2.0 * i as f64 / self.width as f64) as f32).collect();
        let angles = places.mul(&Tensor::from_slice(&steps)?.to_device(device)?)?; // [length, half]
        let (cos, sin) = (angles.cos()?.to_dtype(x.dtype()?)?, angles.sin()?.to_dtype(x.dtype()?)?);
        Self::turn(x, &cos, &sin)
    }

    /// Turns the first half of the last dimension against the second by angles that broadcast to `[…, width / 2]`.
    pub fn turn(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let half = x.size(-1)? / 2;
        let (a, b) = (x.narrow(-1, 0, half)?, x.narrow(-1, half, half)?);
        Tensor::cat(&[&a.mul(cos)?.sub(&b.mul(sin)?)?, &b.mul(cos)?.add(&a.mul(sin)?)?], -1)
    }
}

/// Bucket of each (query, key) pair, `[queries, keys]` int64: half of the buckets are for keys before the query, half for keys after it;
/// small distances have a bucket each, larger ones share buckets that grow logarithmically up to `max_distance` (T5, Raffel et al. 2020,
/// <https://arxiv.org/abs/1910.10683>; MPNet).
pub fn relative_position_buckets(
    queries: i64,
    keys: i64,
    offset: i64,
    num_buckets: i64,
    max_distance: i64,
) -> Result<Tensor> {
    let half = num_buckets / 2;
    let exact = (half / 2).max(1);
    let mut out = Vec::with_capacity((queries * keys) as usize);
    for query in offset..offset + queries {
        for key in 0..keys {
            let distance = (key - query).abs();
            let bucket = if distance < exact {
                distance
            } else {
                let log = (distance as f64 / exact as f64).ln() / (max_distance as f64 / exact as f64).ln();
                (exact + (log * (half - exact) as f64) as i64).min(half - 1)
            };
            out.push(bucket + if key > query { half } else { 0 });
        }
    }
    Tensor::from_vec(&out, &[queries, keys])
}

/// Sinusoidal positions `[length, width]`: sines, then cosines (`halves`), or in turn.
pub fn sinusoidal_positions(length: i64, width: i64, halves: bool, device: Device) -> Result<Tensor> {
    let half = (width / 2).max(1);
    let mut out = vec![0f32; (length * width) as usize];
    for place in 0..length {
        for i in 0..half {
            let denominator = if halves { (half - 1).max(1) as f64 } else { half as f64 };
            let angle = place as f64 * (-(10_000f64.ln()) * i as f64 / denominator).exp();
            let row = place * width;
            let (s, c) = if halves { (row + i, row + half + i) } else { (row + 2 * i, row + 2 * i + 1) };
            out[s as usize] = angle.sin() as f32;
            if i + half < width || !halves {
                out[c as usize] = angle.cos() as f32;
            }
        }
    }
    Tensor::from_vec(&out, &[length, width])?.to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_position_buckets_match_t5() {
        // transformers' T5Attention._relative_position_bucket(bidirectional, 32 buckets, 128) for −3..=3 and 40.
        let row = relative_position_buckets(1, 44, 3, 32, 128).unwrap().to_vec::<i64>().unwrap();
        assert_eq!(row[..7], [3, 2, 1, 0, 17, 18, 19]);
        assert_eq!(row[43], 16 + 8 + ((40f64 / 8.0).ln() / (128f64 / 8.0).ln() * 8.0) as i64);
    }

    #[test]
    fn rotation_depends_on_the_distance_alone() {
        let rotary = Rotary { width: 8, base: 10_000.0 };
        let (q, k) = (
            Tensor::randn(&[1, 1, 1, 8], DType::F32, Device::Cpu).unwrap(),
            Tensor::randn(&[1, 1, 1, 8], DType::F32, Device::Cpu).unwrap(),
        );
        let score = |a, b| {
            rotary.apply(&q, a).unwrap().mul(&rotary.apply(&k, b).unwrap()).unwrap().sum().unwrap().to_f64().unwrap()
        };
        assert!((score(3, 5) - score(103, 105)).abs() < 1e-4);
        assert!((score(3, 5) - score(3, 9)).abs() > 1e-6);
    }
}
