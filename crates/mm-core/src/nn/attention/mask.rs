//! Attention masks.

use crate::{DType, Error, Result, Tensor};

/// Which keys a query may attend to, in addition to causality (a switch of the config).
#[derive(Debug, Clone)]
pub enum Mask {
    /// `[batch, keys]` bool, true for data and false for padding.
    Padding(Tensor),
    /// Bool, true where a query may attend, broadcast to `[batch, heads, queries, keys]`.
    Allowed(Tensor),
    /// Values added to the scores, broadcast to the same shape.
    Bias(Tensor),
}

impl Mask {
    /// The mask as a term of the scores that broadcasts to `[batch, heads, queries, keys]`.
    fn bias(&self, keys: i64, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Padding(padding) => {
                let shape = padding.shape();
                if shape.len() != 2 || shape[1] != keys {
                    return Err(Error::shape("attention padding mask", &shape, format!("[batch, {keys}]")));
                }
                bias_from_allowed(padding, dtype)?.reshape(&[shape[0], 1, 1, keys])
            }
            Self::Allowed(allowed) => bias_from_allowed(allowed, dtype),
            Self::Bias(bias) => bias.to_dtype(dtype),
        }
    }
}

/// Zero where `allowed`, the mask value elsewhere.
///
/// The mask value is finite, so that a query without any allowed key gives finite values instead of NaN; its
/// exponential is exactly zero.
fn bias_from_allowed(allowed: &Tensor, dtype: DType) -> Result<Tensor> {
    let zeros = Tensor::zeros(&allowed.shape(), dtype, allowed.device())?;
    zeros.masked_fill(&allowed.logical_not()?, dtype.mask_value())
}

/// Sum of all terms added to the scores of `queries` `[batch, heads, length, head_dim]`, of rank 2 or 4; none when
/// nothing is masked. `past` is the number of cached positions before the first query.
pub(super) fn attention_bias(
    mask: Option<&Mask>,
    queries: &Tensor,
    length: i64,
    keys: i64,
    past: i64,
    causal: bool,
) -> Result<Option<Tensor>> {
    let dtype = queries.dtype()?;
    let mut bias = mask.map(|m| m.bias(keys, dtype)).transpose()?;
    if causal {
        let allowed = Tensor::ones(&[length, keys], DType::Bool, queries.device())?.tril(past)?;
        let term = bias_from_allowed(&allowed, dtype)?;
        bias = Some(match bias {
            // Two mask values may exceed the range of float16.
            Some(bias) => bias.add(&term)?.clamp_min(dtype.mask_value())?,
            None => term,
        });
    }
    // The fused kernel accepts rank 2 or 4.
    bias.map(|b| if b.rank() == 3 { b.unsqueeze(0) } else { Ok(b) }).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn masks_that_overlap_are_finite_in_every_type() {
        // The second query of the second row may attend to nothing.
        let padding = Tensor::from_vec(&[true, true, false, false], &[2, 2]).unwrap();
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            let queries = Tensor::zeros(&[2, 1, 2, 4], dtype, Device::Cpu).unwrap();
            let bias = attention_bias(Some(&Mask::Padding(padding.clone())), &queries, 2, 2, 0, true).unwrap().unwrap();
            let weights = bias.to_dtype(DType::F32).unwrap().softmax(-1).unwrap().to_vec::<f32>().unwrap();
            assert_eq!(weights, [1.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], "{dtype:?}");
        }
    }
}
