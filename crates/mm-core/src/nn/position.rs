//! Position encodings other than rotary: sinusoidal tables and relative position buckets. Learned positions are an
//! [`Embedding`](super::Embedding) added before the first block.

use crate::{Device, Error, Result, Tensor};
use serde::{Deserialize, Serialize};

/// Position encoding that attention applies itself.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Position {
    /// None; positions are added to the input, if at all.
    #[default]
    None,
    /// Queries and keys are rotated by their position ([`RotaryEmbedding`](super::RotaryEmbedding)).
    Rotary {
        /// Base of the wavelengths, 10,000 in the paper.
        base: f64,
    },
}

/// Bucket of each (query, key) pair, `[queries, keys]` int64: half of the buckets are for keys before the query, half
/// for keys after it. Small distances have a bucket each; larger ones share buckets that grow logarithmically up to
/// `max_distance`.
///
/// *Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer* (Raffel et al., 2020),
/// <https://arxiv.org/abs/1910.10683>.
pub fn relative_position_buckets(
    queries: i64,
    keys: i64,
    offset: i64,
    num_buckets: i64,
    max_distance: i64,
) -> Result<Tensor> {
    if queries < 0 || keys < 0 || offset < 0 || num_buckets < 2 {
        let found = format!("{queries} queries from {offset} on, {keys} keys, {num_buckets} buckets");
        return Err(Error::config("relative positions", found, "no negative number, and at least two buckets"));
    }
    let half = num_buckets / 2;
    let exact = (half / 2).max(1);
    let mut out = Vec::with_capacity((queries * keys) as usize);
    for query in offset..offset + queries {
        for key in 0..keys {
            let distance = (key - query).abs();
            let bucket = if distance < exact {
                distance
            } else if distance >= max_distance {
                half - 1
            } else {
                let log = (distance as f64 / exact as f64).ln() / (max_distance as f64 / exact as f64).ln();
                (exact + (log * (half - exact) as f64) as i64).min(half - 1)
            };
            out.push(bucket + if key > query { half } else { 0 });
        }
    }
    Tensor::from_vec(&out, &[queries, keys])
}

/// Maximum number of values of a table of sinusoidal positions.
const MAX_SINUSOIDAL: i64 = 1 << 28;

/// Sinusoidal positions `[length, dim]`: all sines, then all cosines (`halves`), or sines and cosines in turn.
///
/// *Attention Is All You Need* (Vaswani et al., 2017), <https://arxiv.org/abs/1706.03762>.
pub fn sinusoidal_positions(length: i64, dim: i64, halves: bool, device: Device) -> Result<Tensor> {
    let count = length.checked_mul(dim).filter(|n| (0..=MAX_SINUSOIDAL).contains(n) && length >= 0 && dim >= 1);
    let count = count.ok_or_else(|| {
        let expected =
            format!("a length of at least 0, a dimension of at least 1, and at most {MAX_SINUSOIDAL} values");
        Error::config("sinusoidal positions", format!("{length} × {dim}"), expected)
    })?;
    let half = (dim / 2).max(1);
    let mut out = vec![0f32; count as usize];
    for position in 0..length {
        for i in 0..half {
            let denominator = if halves { (half - 1).max(1) as f64 } else { half as f64 };
            let angle = position as f64 * (-(10_000f64.ln()) * i as f64 / denominator).exp();
            let row = position * dim;
            let (s, c) = if halves { (row + i, row + half + i) } else { (row + 2 * i, row + 2 * i + 1) };
            out[s as usize] = angle.sin() as f32;
            if c < row + dim {
                out[c as usize] = angle.cos() as f32;
            }
        }
    }
    Tensor::from_vec(&out, &[length, dim])?.to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinusoidal_positions_of_any_dimension_stay_in_their_row() {
        for halves in [true, false] {
            for dim in 1..6 {
                let table = sinusoidal_positions(3, dim, halves, Device::Cpu).unwrap().to_vec::<f32>().unwrap();
                assert_eq!(table.len(), 3 * dim as usize);
                assert!((table[dim as usize] - 1f32.sin()).abs() < 1e-6, "{table:?}");
                assert_eq!(table[0], 0.0);
            }
            assert!(sinusoidal_positions(3, 0, halves, Device::Cpu).is_err());
            assert!(sinusoidal_positions(-1, 4, halves, Device::Cpu).is_err());
        }
        let even = sinusoidal_positions(2, 4, false, Device::Cpu).unwrap().to_vec::<f32>().unwrap();
        let expected = [0.0, 1.0, 0.0, 1.0, 1f32.sin(), 1f32.cos(), 0.01f32.sin(), 0.01f32.cos()];
        assert!(even.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{even:?}");
    }

    #[test]
    fn relative_position_buckets_match_t5() {
        // transformers' T5Attention._relative_position_bucket(bidirectional, 32 buckets, 128) for −3..=3 and 40.
        let row = relative_position_buckets(1, 44, 3, 32, 128).unwrap().to_vec::<i64>().unwrap();
        assert_eq!(row[..7], [3, 2, 1, 0, 17, 18, 19]);
        assert_eq!(relative_position_buckets(1, 300, 0, 32, 128).unwrap().to_vec::<i64>().unwrap()[299], 31);
        // A range of the logarithmic buckets that is empty.
        assert_eq!(relative_position_buckets(1, 9, 0, 32, 8).unwrap().to_vec::<i64>().unwrap()[8], 31);
        assert!(
            relative_position_buckets(1, 4, 0, 1, 8).is_err() && relative_position_buckets(-1, 4, 0, 8, 8).is_err()
        );
        assert_eq!(row[43], 16 + 8 + ((40f64 / 8.0).ln() / (128f64 / 8.0).ln() * 8.0) as i64);
    }
}
