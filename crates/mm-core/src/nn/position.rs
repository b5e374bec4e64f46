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
        /// Whether neighbours make a pair (GPT-J), or halves do (`LLaMA`).
        interleaved: bool,
    },
    /// A penalty that grows with the distance, another slope for each head.
    Alibi,
    /// A learned number for each head and bucket of distances.
    Relative {
        /// Number of buckets.
        buckets: i64,
        /// Distance from which all share the last bucket.
        furthest: i64,
    },
}

/// Rotary position: angles for a head's width.
#[derive(Debug, Clone, Copy)]
pub struct Rotary {
    /// Width of a head; even.
    pub width: i64,
    /// Base of the wavelengths.
    pub base: f64,
    /// Pairs of neighbours instead of halves.
    pub interleaved: bool,
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
        if self.interleaved {
            let shape = x.shape();
            let pairs = x.reshape(&[shape[0], shape[1], length, half, 2])?;
            let (a, b) = (pairs.select(-1, 0)?, pairs.select(-1, 1)?);
            let turned = (a.mul(&cos)?.sub(&b.mul(&sin)?)?, b.mul(&cos)?.add(&a.mul(&sin)?)?);
            return Tensor::stack(&[&turned.0, &turned.1], -1)?.reshape(&shape);
        }
        Self::turn(x, &cos, &sin)
    }

    /// Turns the first half of the last dimension against the second by angles that broadcast to `[…, width / 2]`.
    pub fn turn(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor> {
        let half = x.size(-1)? / 2;
        let (a, b) = (x.narrow(-1, 0, half)?, x.narrow(-1, half, half)?);
        Tensor::cat(&[&a.mul(cos)?.sub(&b.mul(sin)?)?, &b.mul(cos)?.add(&a.mul(sin)?)?], -1)
    }
}

/// The slopes of `ALiBi`, one a head: powers of 2^(−8/heads), interleaved when the heads are no power of two.
pub fn alibi_slopes(heads: i64) -> Vec<f32> {
    let powers = |n: i64| (1..=n).map(|i| 2f64.powf(-8.0 * i as f64 / n as f64) as f32).collect::<Vec<_>>();
    let whole = 1i64 << heads.max(1).ilog2();
    let mut slopes = powers(whole);
    if whole < heads {
        slopes.extend(powers(2 * whole).into_iter().step_by(2).take((heads - whole) as usize));
    }
    slopes
}

/// T5's bucket of each (query, key): `[queries, keys]` int64. Half the buckets are for keys behind, half for keys ahead.
pub fn relative_buckets(queries: i64, keys: i64, offset: i64, buckets: i64, furthest: i64) -> Result<Tensor> {
    let half = buckets / 2;
    let exact = (half / 2).max(1);
    let mut out = Vec::with_capacity((queries * keys) as usize);
    for query in offset..offset + queries {
        for key in 0..keys {
            let distance = (key - query).abs();
            let near = if distance < exact {
                distance
            } else {
                let far = (distance as f64 / exact as f64).ln() / (furthest as f64 / exact as f64).ln();
                (exact + (far * (half - exact) as f64) as i64).min(half - 1)
            };
            out.push(near + if key > query { half } else { 0 });
        }
    }
    Tensor::from_vec(&out, &[queries, keys])
}

/// Sinusoidal positions `[length, width]`: sines, then cosines (`halves`), or in turn.
pub fn sinusoidal(length: i64, width: i64, halves: bool, device: Device) -> Result<Tensor> {
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
    fn slopes_and_buckets_are_those_of_the_papers() {
        assert_eq!(alibi_slopes(8)[..3], [0.5, 0.25, 0.125]);
        assert_eq!(alibi_slopes(12).len(), 12);
        // transformers' T5Attention._relative_position_bucket(bidirectional, 32 buckets, 128) for −3..=3 and 40.
        let row = relative_buckets(1, 44, 3, 32, 128).unwrap().to_vec::<i64>().unwrap();
        assert_eq!(row[..7], [3, 2, 1, 0, 17, 18, 19]);
        assert_eq!(row[43], 16 + 8 + ((40f64 / 8.0).ln() / (128f64 / 8.0).ln() * 8.0) as i64);
    }

    #[test]
    fn rotation_depends_on_the_distance_alone() {
        let rotary = Rotary { width: 8, base: 10_000.0, interleaved: false };
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
