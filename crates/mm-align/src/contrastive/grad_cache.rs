//! Gradient caching: contrastive batches larger than memory.

use crate::{Result, checks::invalid};
use mm_core::Tensor;

/// Runs forward and backward on a large batch in `chunks` chunks and returns the loss.
///
/// All chunks are embedded without recording gradients; the loss and its gradients with respect to the embeddings are
/// computed on the whole batch; then each chunk is embedded again with its graph and back-propagates its part of these
/// gradients. The parameters' gradients are those of the whole batch. The cost is one extra forward pass of all chunks
/// but the last. `encode(chunk)` returns both modalities' embeddings of a chunk and must return the same values both
/// times (seed dropout with the chunk's index).
///
/// For a training loop of your own; `mm_train::Trainer` does the same for objectives that give a batch in
/// [chunks](mm_core::TrainingObjective::chunks).
///
/// From *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup* (Gao et al., 2021,
/// <https://arxiv.org/abs/2101.06983>).
///
/// # Errors
/// With zero chunks.
pub fn grad_cache_backward(
    chunks: usize,
    mut encode: impl FnMut(usize) -> Result<(Tensor, Tensor)>,
    loss: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<f64> {
    let Some(last) = chunks.checked_sub(1) else {
        return Err(invalid("grad_cache_backward", "no chunk", "at least one"));
    };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for chunk in 0..last {
        let (a, b) = mm_core::no_grad(|| encode(chunk))?;
        left.push(a);
        right.push(b);
    }
    let last_embeddings = encode(last)?;
    left.push(last_embeddings.0.detach()?);
    right.push(last_embeddings.1.detach()?);
    let join = |all: &[Tensor]| Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?.set_requires_grad(true);
    let (a, b) = (join(&left)?, join(&right)?);
    let value = loss(&a, &b)?;
    value.backward()?;
    let grad = |x: &Tensor| x.grad().map_or_else(|| x.zeros_like(), Ok);
    let (grad_a, grad_b) = (grad(&a)?, grad(&b)?);
    // ⟨embeddings, cached gradients⟩ has the gradient that the whole-batch loss has with respect to this chunk.
    let backward_chunk = |(a, b): (Tensor, Tensor), start: i64| -> Result<i64> {
        let rows = a.size(0)?;
        let a = a.mul(&grad_a.narrow(0, start, rows)?)?.sum()?;
        a.add(&b.mul(&grad_b.narrow(0, start, rows)?)?.sum()?)?.backward()?;
        Ok(start + rows)
    };
    backward_chunk(last_embeddings, a.size(0)? - left[last].size(0)?)?;
    let mut start = 0;
    for chunk in 0..last {
        start = backward_chunk(encode(chunk)?, start)?;
    }
    Ok(value.to_f64()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contrastive::{InfoNceOptions, Similarity, Temperature, info_nce};
    use mm_core::{DType, Device};

    #[test]
    fn chunked_gradients_equal_those_of_the_whole_batch() {
        mm_core::seed::manual_seed(2);
        let randn = |shape: &[i64]| Tensor::randn(shape, DType::F64, Device::Cpu).unwrap();
        let (x, y) = (randn(&[24, 5]), randn(&[24, 7]));
        let (w, v) = (randn(&[3, 5]).set_requires_grad(true).unwrap(), randn(&[3, 7]).set_requires_grad(true).unwrap());
        let scale = Tensor::from_slice(&[4.0f64]).unwrap().set_requires_grad(true).unwrap();
        let encode = |x: &Tensor, y: &Tensor| -> Result<(Tensor, Tensor)> {
            Ok((x.linear(&w, None)?.tanh()?, y.linear(&v, None)?))
        };
        let loss = |a: &Tensor, b: &Tensor| {
            info_nce(&Similarity::cosine(a, b)?, Temperature::Inverse(&scale), InfoNceOptions::default())
        };
        let all = [&w, &v, &scale];
        let (a, b) = encode(&x, &y).unwrap();
        let whole = loss(&a, &b).unwrap();
        whole.backward().unwrap();
        let expected: Vec<Vec<f64>> = all.iter().map(|t| t.grad().unwrap().to_vec().unwrap()).collect();
        all.iter().for_each(|t| t.zero_grad());
        let chunk = |c: usize| encode(&x.narrow(0, 8 * c as i64, 8)?, &y.narrow(0, 8 * c as i64, 8)?);
        let value = grad_cache_backward(3, chunk, loss).unwrap();
        assert!((value - whole.to_f64().unwrap()).abs() < 1e-12);
        for (t, expected) in all.iter().zip(expected) {
            let found = t.grad().unwrap().to_vec::<f64>().unwrap();
            assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-5 * e.abs().max(1e-3)));
        }
    }
}
