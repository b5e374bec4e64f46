//! The temperature of a softmax over similarities.

use crate::{Result, checks::invalid};
use mm_core::Tensor;

/// Temperature of a contrastive loss, by which similarities are divided: a constant (`0.07.into()`), or the inverse of
/// a tensor that may be learned.
///
/// ```
/// use mm_align::contrastive::{InfoNceOptions, Similarity, info_nce};
/// use mm_core::{Device, Tensor};
/// # fn main() -> mm_align::Result<()> {
/// let similarity = Similarity::from_scores(Tensor::new([[0.9f32, 0.1], [0.2, 0.8]], Device::Cpu)?)?;
/// let fixed = info_nce(&similarity, 0.1, InfoNceOptions::default())?.to_f64()?;
/// // An equal temperature, given as its inverse in a tensor that requires gradients.
/// let scale = Tensor::new([10f32], Device::Cpu)?.set_requires_grad(true)?;
/// let learned = info_nce(&similarity, Temperature::Inverse(&scale), InfoNceOptions::default())?;
/// assert!((fixed - learned.to_f64()?).abs() < 1e-6);
/// # Ok(())
/// # }
/// # use mm_align::contrastive::Temperature;
/// ```
#[derive(Debug, Clone, Copy)]
pub enum Temperature<'a> {
    /// The temperature, above zero.
    Fixed(f64),
    /// One over the temperature, `[1]` or a scalar.
    Inverse(&'a Tensor),
}

impl From<f64> for Temperature<'_> {
    fn from(temperature: f64) -> Self {
        Self::Fixed(temperature)
    }
}

impl Temperature<'_> {
    /// Similarities divided by the temperature.
    pub(super) fn scale(self, similarities: &Tensor) -> Result<Tensor> {
        match self {
            Self::Fixed(temperature) if temperature > 0.0 && temperature.is_finite() => {
                Ok(similarities.mul_scalar(1.0 / temperature)?)
            }
            Self::Fixed(found) => Err(invalid("temperature", found.to_string(), "a finite number above 0")),
            Self::Inverse(scale) => Ok(similarities.mul(scale)?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::Device;

    #[test]
    fn numbers_and_tensors_scale_alike_and_zero_is_an_error() {
        let similarities = Tensor::new([[1f32, -0.5]], Device::Cpu).unwrap();
        let inverse = Tensor::new([4f32], Device::Cpu).unwrap();
        for temperature in [Temperature::from(0.25), Temperature::Inverse(&inverse)] {
            assert_eq!(temperature.scale(&similarities).unwrap().to_vec::<f32>().unwrap(), [4.0, -2.0]);
        }
        for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let error = Temperature::Fixed(bad).scale(&similarities).unwrap_err().to_string();
            assert!(error.contains("temperature: found"), "{error}");
        }
    }
}
