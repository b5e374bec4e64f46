//! Tensors that are computed from parameters.

use mm_core::{Result, Tensor};
use std::cell::OnceCell;

/// A tensor that is computed from parameters: once while they are frozen, at each use while they are trained, since a
/// value kept from before would neither follow the parameters nor survive a second backward pass.
#[derive(Default)]
pub struct Derived(OnceCell<Tensor>);

impl Derived {
    /// The value of `compute`, which depends on `parameters`.
    pub fn get(&self, parameters: &[&Tensor], compute: impl FnOnce() -> Result<Tensor>) -> Result<Tensor> {
        if parameters.iter().any(|p| p.requires_grad()) {
            return compute();
        }
        if let Some(known) = self.0.get() {
            return Ok(known.clone());
        }
        let value = compute()?;
        Ok(self.0.get_or_init(|| value).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device};

    #[test]
    fn values_of_trained_parameters_are_recomputed_and_those_of_frozen_ones_computed_once() {
        let weight = Tensor::ones(&[2], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let (derived, mut computed) = (Derived::default(), 0);
        let mut double = |weight: &Tensor| {
            derived.get(&[weight], || {
                computed += 1;
                weight.mul_scalar(2.0)
            })
        };
        for _ in 0..2 {
            double(&weight).unwrap().sum().unwrap().backward().unwrap();
        }
        let frozen = weight.set_requires_grad(false).unwrap();
        for _ in 0..3 {
            assert_eq!(double(&frozen).unwrap().to_vec::<f32>().unwrap(), [2.0, 2.0]);
        }
        assert_eq!(computed, 3);
    }
}
