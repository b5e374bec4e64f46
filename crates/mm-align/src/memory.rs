//! What another modality knows completes a vector: a picture that was never seen lies near captions that were, and these say what it shows
//! in the words' half of the space. It narrows the gap between modalities where candidates are ranked.

use crate::{Result, correlation::wrong};
use mm_core::Tensor;
use serde::{Deserialize, Serialize};

/// Whose vectors are remembered, and whose are completed by them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// The modality whose training vectors are remembered.
    pub modality: String,
    /// The modalities whose vectors are completed.
    pub of: Vec<String>,
    /// Share of what is remembered in the sum with the vector itself.
    #[serde(default = "share")]
    pub share: f64,
    /// What cosines are divided by before their softmax over the memory.
    #[serde(default = "temperature")]
    pub temperature: f64,
}

impl MemoryConfig {
    /// Whether the numbers make sense.
    pub fn check(&self) -> Result<()> {
        sensible(self.share, self.temperature)
    }
}

fn sensible(share: f64, temperature: f64) -> Result<()> {
    if (0.0..=1.0).contains(&share) && temperature > 0.0 {
        return Ok(());
    }
    let found = format!("share {share}, temperature {temperature}");
    Err(wrong("memory", found, "a share in [0, 1] and a positive temperature"))
}

fn share() -> f64 {
    0.4
}

fn temperature() -> f64 {
    0.06
}

/// Vectors `[rows, width]` and, beside them, the mean of the `memory` `[entries, width]` by the softmax of their cosines (the projection of
/// `DeCap`, Li 2023), both of unit length, summed by `share`; of unit length again.
pub fn complete(vectors: &Tensor, memory: &Tensor, share: f64, temperature: f64) -> Result<Tensor> {
    sensible(share, temperature)?;
    let (found, known) = (vectors.shape(), memory.shape());
    if found.len() != 2 || known.len() != 2 || known[0] == 0 || found[1] != known[1] {
        return Err(wrong(
            "memory",
            format!("{found:?} and {known:?}"),
            "[rows, width] and [entries, width] of one width",
        ));
    }
    let (own, memory) = (vectors.normalize()?, memory.normalize()?);
    let weights = own.matmul(&memory.transpose(0, 1)?)?.mul_scalar(1.0 / temperature)?.softmax(1)?; // [rows, entries]
    let remembered = weights.matmul(&memory)?.normalize()?;
    Ok(own.mul_scalar(1.0 - share)?.add(&remembered.mul_scalar(share)?)?.normalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_moves_towards_what_is_remembered_near_it() {
        let memory = Tensor::from_vec(&[2f32, 0.0, 0.0, 3.0], &[2, 2]).unwrap();
        let vectors = Tensor::from_vec(&[0.8f32, 0.6], &[1, 2]).unwrap();
        let of = |share, temperature| complete(&vectors, &memory, share, temperature).unwrap().to_vec::<f64>().unwrap();
        let near = |a: Vec<f64>, b: [f64; 2]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-5);
        assert!(near(of(0.0, 0.1), [0.8, 0.6]));
        assert!(near(of(1.0, 1e-3), [1.0, 0.0]));
        // Half and half: (0.8, 0.6) + (1, 0), brought to unit length.
        assert!(near(of(0.5, 1e-3), [0.948_683, 0.316_228]));
        // softmax(0.8 / 0.2, 0.6 / 0.2) = (0.731059, 0.268941).
        assert!(near(of(1.0, 0.2), [0.938_517, 0.345_252]));
    }

    #[test]
    fn what_makes_no_sense_is_an_error() {
        let x = Tensor::from_vec(&[1f32, 0.0], &[1, 2]).unwrap();
        let wide = Tensor::from_vec(&[1f32, 0.0, 0.0], &[1, 3]).unwrap();
        for (memory, share, temperature) in [(&wide, 0.5, 0.1), (&x, 1.5, 0.1), (&x, 0.5, 0.0), (&x, f64::NAN, 0.1)] {
            assert!(complete(&x, memory, share, temperature).is_err());
        }
    }
}
