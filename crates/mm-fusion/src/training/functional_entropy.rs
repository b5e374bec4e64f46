//! Regularization by maximal functional entropies: a network that ignores a modality is pushed to use it.

use crate::Result;
use mm_core::Tensor;

/// Regularizer to be added to the loss with a small weight, a scalar: the negative logarithm of the functional Fisher
/// information of `logits` `[rows, classes]` with respect to each of `inputs`, averaged over these. `inputs` are the
/// modalities' features, from which the logits were computed; they must require gradients.
///
/// From *Removing Bias in Multi-modal Classifiers: Regularization by Maximizing Functional Entropies* (Gat et al.,
/// 2020, <https://arxiv.org/abs/2010.10802>).
///
/// # Errors
/// When an input does not require gradients, or the logits do not depend on it.
pub fn functional_entropy(logits: &Tensor, inputs: &[&Tensor]) -> Result<Tensor> {
    let p = logits.softmax(1)?;
    // The functional is the squared norm of the predicted distribution.
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
    fn ignoring_a_modality_raises_the_regularizer() {
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
