//! Representations learned against an adversary: what is made must pass for real (GAN, Goodfellow 2014), or must not tell which modality
//! it came from (DANN, Ganin 2016; ACMR, Wang 2017).
//!
//! Maker and critic are learned in the same step: the critic from values that the maker's gradient does not reach, the maker through
//! a shadow of the critic ([`mm_core::Scope::shadow`]) that shares its numbers and takes no gradient. Their two time scales (Heusel
//! 2017) are groups of the optimiser: `train.optimizer.param_groups = [{ prefix = "critic", lr_scale = 2.0 }]`.

mod acmr;
mod adversarial_autoencoder;
mod bigan;
mod discriminator;
mod gan;
mod translation;

pub use acmr::{Acmr, AcmrConfig, AdversarialLoss};
pub use adversarial_autoencoder::{AdversarialAutoencoder, AdversarialAutoencoderConfig};
pub use bigan::{BiGan, BiGanConfig};
pub(crate) use discriminator::DiscriminatorPair;
pub use discriminator::{Discriminator, DiscriminatorConfig, GanLoss};
pub use gan::{Gan, GanConfig};
pub use translation::{Translation, TranslationConfig};

use mm_core::{Result, Tensor};

/// The same numbers, whose gradient is turned round and multiplied on its way back (Ganin 2016).
pub fn gradient_reversal(x: &Tensor, weight: f64) -> Result<Tensor> {
    x.detach()?.mul_scalar(1.0 + weight)?.sub(&x.mul_scalar(weight)?)
}

/// How far rows lie from each other on average: what falls when a maker makes always the same.
pub(crate) fn spread(x: &Tensor) -> Result<f64> {
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
    fn a_reversed_gradient_leaves_the_numbers_and_turns_the_gradient() {
        let x = Tensor::from_slice(&[1f32, -2.0, 3.0]).unwrap().set_requires_grad(true).unwrap();
        let y = gradient_reversal(&x, 0.5).unwrap();
        assert!(y.sub(&x).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-6);
        y.mul(&Tensor::from_slice(&[1f32, 2.0, 4.0]).unwrap()).unwrap().sum().unwrap().backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [-0.5, -1.0, -2.0]);
    }

    #[test]
    fn a_maker_that_makes_always_the_same_has_no_spread() {
        let same = Tensor::ones(&[5, 3], DType::F32, Device::Cpu).unwrap();
        assert!(spread(&same).unwrap() < 1e-6);
        let pair = Tensor::from_vec(&[0f32, 0.0, 3.0, 4.0], &[2, 2]).unwrap();
        assert!((spread(&pair).unwrap() - 5.0).abs() < 1e-5);
    }
}
