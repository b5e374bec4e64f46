//! Memory-based projection: an embedding is interpolated with the attention-weighted mean of another modality's
//! training embeddings, which narrows the modality gap when candidates are ranked.

use crate::{Result, checks::invalid};
use mm_core::Tensor;
use serde::{Deserialize, Serialize};

/// Settings of a memory: which modality's embeddings are stored, and which modalities are interpolated with them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryConfig {
    /// Modality whose training embeddings are stored.
    pub modality: String,
    /// Modalities whose embeddings are interpolated.
    pub apply_to: Vec<String>,
    /// Weight of the memory in the interpolation, in [0, 1].
    #[serde(default = "default_weight")]
    pub weight: f64,
    /// Temperature of the softmax over the stored embeddings.
    #[serde(default = "default_temperature")]
    pub temperature: f64,
}

impl MemoryConfig {
    /// Checks weight and temperature.
    ///
    /// # Errors
    /// When the weight is outside [0, 1] or the temperature is not positive.
    pub fn validate(&self) -> Result<()> {
        validate(self.weight, self.temperature)
    }
}

fn validate(weight: f64, temperature: f64) -> Result<()> {
    if (0.0..=1.0).contains(&weight) && temperature > 0.0 {
        return Ok(());
    }
    let found = format!("weight {weight}, temperature {temperature}");
    Err(invalid("memory", found, "a weight in [0, 1] and a positive temperature"))
}

fn default_weight() -> f64 {
    0.4
}

fn default_temperature() -> f64 {
    0.06
}

/// Interpolates embeddings `[rows, dim]` with their projection onto `memory` `[entries, dim]`: the mean of the entries
/// weighted by the softmax of their cosines with the embedding over `temperature`. Everything is normalized to unit
/// length.
///
/// The projection is that of *DeCap: Decoding CLIP Latents for Zero-Shot Captioning via Text-Only Training* (Li et al.,
/// 2023, <https://arxiv.org/abs/2303.03032>).
///
/// # Errors
/// When the dimensions differ, the memory is empty, or a setting is out of range.
pub fn interpolate(embeddings: &Tensor, memory: &Tensor, weight: f64, temperature: f64) -> Result<Tensor> {
    validate(weight, temperature)?;
    let (found, stored) = (embeddings.shape(), memory.shape());
    if found.len() != 2 || stored.len() != 2 || stored[0] == 0 || found[1] != stored[1] {
        let found = format!("{found:?} and {stored:?}");
        return Err(invalid("memory", found, "[rows, dim] and [entries, dim] of the same dimension"));
    }
    let (embeddings, memory) = (embeddings.normalize()?, memory.normalize()?);
    let attention = embeddings.matmul(&memory.transpose(0, 1)?)?.mul_scalar(1.0 / temperature)?.softmax(1)?; // [rows, entries]
    let projected = attention.matmul(&memory)?.normalize()?;
    Ok(embeddings.mul_scalar(1.0 - weight)?.add(&projected.mul_scalar(weight)?)?.normalize()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_embedding_moves_toward_similar_memory_entries() {
        let memory = Tensor::from_vec(&[2f32, 0.0, 0.0, 3.0], &[2, 2]).unwrap();
        let x = Tensor::from_vec(&[0.8f32, 0.6], &[1, 2]).unwrap();
        let of = |weight, temperature| interpolate(&x, &memory, weight, temperature).unwrap().to_vec::<f64>().unwrap();
        let near = |a: Vec<f64>, b: [f64; 2]| a.iter().zip(b).all(|(x, y)| (x - y).abs() < 1e-5);
        assert!(near(of(0.0, 0.1), [0.8, 0.6]));
        assert!(near(of(1.0, 1e-3), [1.0, 0.0]));
        // (0.8, 0.6) + (1, 0), normalized.
        assert!(near(of(0.5, 1e-3), [0.948_683, 0.316_228]));
        // softmax(0.8 / 0.2, 0.6 / 0.2) = (0.731059, 0.268941).
        assert!(near(of(1.0, 0.2), [0.938_517, 0.345_252]));
    }

    #[test]
    fn invalid_settings_and_shapes_are_errors() {
        let x = Tensor::from_vec(&[1f32, 0.0], &[1, 2]).unwrap();
        let other = Tensor::from_vec(&[1f32, 0.0, 0.0], &[1, 3]).unwrap();
        for (memory, weight, temperature) in [(&other, 0.5, 0.1), (&x, 1.5, 0.1), (&x, 0.5, 0.0), (&x, f64::NAN, 0.1)] {
            assert!(interpolate(&x, memory, weight, temperature).is_err());
        }
    }
}
