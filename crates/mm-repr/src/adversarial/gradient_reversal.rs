//! The gradient reversal layer.

use mm_core::{Result, Tensor};

/// The identity, whose gradient is multiplied by −`weight`. *Domain-Adversarial Training of Neural Networks*
/// ([Ganin et al., 2016](https://arxiv.org/abs/1505.07818)).
pub fn gradient_reversal(x: &Tensor, weight: f64) -> Result<Tensor> {
    x.scale_gradient(-weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_unchanged_and_the_gradient_is_reversed() {
        let x = Tensor::from_slice(&[1f32, -2.0, 3.0]).unwrap().set_requires_grad(true).unwrap();
        let y = gradient_reversal(&x, 0.5).unwrap();
        assert!(y.sub(&x).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-6);
        y.mul(&Tensor::from_slice(&[1f32, 2.0, 4.0]).unwrap()).unwrap().sum().unwrap().backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [-0.5, -1.0, -2.0]);
    }
}
