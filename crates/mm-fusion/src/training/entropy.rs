//! Regularisation by maximal functional entropy (RMFE, Gat 2020): the more a prediction changes with a modality, the more information of that
//! modality it uses; a network that looks at one modality alone is pushed to look at the others.

use crate::Result;
use mm_core::Tensor;

/// Minus the logarithm of the functional Fisher information of `logits` `[rows, classes]` with respect to each of `inputs` (features that ask
/// for gradients and that the logits were made of), mean over them: to be added, with a small weight, to the loss.
pub fn functional_entropy(logits: &Tensor, inputs: &[&Tensor]) -> Result<Tensor> {
    let p = logits.softmax(1)?;
    // How far the prediction is from its own mean over classes stands for the functional; its gradient is what counts.
    let score = p.mul(&p)?.sum()?;
    let gradients = score.autograd_grad(inputs)?;
    let rows = logits.size(0)? as f64;
    let mut total = score.mul_scalar(0.0)?;
    for gradient in &gradients {
        let information = gradient.pow(2.0)?.sum()?.mul_scalar(1.0 / rows)?;
        total = total.add(&information.add_scalar(1e-8)?.log()?.neg()?)?;
    }
    Ok(total.mul_scalar(1.0 / inputs.len().max(1) as f64)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, seed::manual_seed};

    #[test]
    fn a_network_that_ignores_a_modality_is_told_so() {
        manual_seed(3);
        let input = || Tensor::randn(&[16, 4], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let (a, b) = (input(), input());
        let weight = Tensor::randn(&[4, 3], DType::F32, Device::Cpu).unwrap();
        let logits = |share: f64| {
            let x = a.matmul(&weight).unwrap().add(&b.matmul(&weight).unwrap().mul_scalar(share).unwrap()).unwrap();
            functional_entropy(&x, &[&a, &b]).unwrap().to_f64().unwrap()
        };
        assert!(logits(1.0) < logits(0.01));
    }
}
