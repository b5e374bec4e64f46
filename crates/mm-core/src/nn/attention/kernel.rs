//! The attention product itself: libtorch's fused kernels, or explicit matrix products where those are faster or the
//! weights are needed.

use super::AttentionConfig;
use crate::{Device, DotProductArgs, Result, Tensor};
use std::cell::Cell;

thread_local!(static MATH_ATTENTION: Cell<bool> = const { Cell::new(false) });

/// Runs `body` with attention computed by explicit matrix products, whose gradients can be differentiated again; those
/// of the fused kernels cannot.
pub fn with_math_attention<T>(body: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            MATH_ATTENTION.set(self.0);
        }
    }
    let _restore = Restore(MATH_ATTENTION.replace(true));
    body()
}

pub(super) fn is_math_attention() -> bool {
    MATH_ATTENTION.get()
}

/// Arguments of [`attend`] besides queries, keys and values.
pub(super) struct KernelArgs<'a> {
    /// Added to the scores, broadcast to `[batch, heads, queries, keys]`.
    pub(super) bias: Option<&'a Tensor>,
    pub(super) dropout: f64,
    /// Causality left to the fused kernel instead of the bias.
    pub(super) fused_causal: bool,
    pub(super) need_weights: bool,
}

/// Attention of `query` `[batch, heads, queries, head_dim]` over `key` and `value` `[batch, kv_heads, keys, head_dim]`:
/// the mixed values, shaped as `query`, and the weights `[batch, heads, queries, keys]` when asked for.
pub(super) fn attend(
    config: &AttentionConfig,
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    args: &KernelArgs<'_>,
) -> Result<(Tensor, Option<Tensor>)> {
    let explicit = args.need_weights || is_math_attention() || prefers_products(query, key, value, args)?;
    if !explicit {
        let (mask, dropout, causal) = (args.bias, args.dropout, args.fused_causal);
        let args = DotProductArgs { mask, dropout, causal, scale: config.scale };
        let mixed = query.scaled_dot_product_attention(key, value, args)?;
        return Ok((mixed, None));
    }
    let (mixed, weights) = products(config, query, key, value, args)?;
    Ok((mixed, args.need_weights.then_some(weights)))
}

/// Whether explicit products beat the fused kernel, on a CPU.
///
/// Without gradients they do for 17 to 64 keys (measured with 12 heads); with fewer keys each product is too small to
/// be worth its call. The backward pass of the fused kernel is faster at every length. Dropout of weights is not fused
/// on a CPU.
fn prefers_products(query: &Tensor, key: &Tensor, value: &Tensor, args: &KernelArgs<'_>) -> Result<bool> {
    let needs_grad = [query, key, value].iter().any(|t| t.requires_grad());
    let few_keys = (17..=64).contains(&key.size(2)?) && !needs_grad;
    Ok((few_keys || args.dropout > 0.0) && !args.fused_causal && query.device() == Device::Cpu)
}

fn products(
    config: &AttentionConfig,
    query: &Tensor,
    key: &Tensor,
    value: &Tensor,
    args: &KernelArgs<'_>,
) -> Result<(Tensor, Tensor)> {
    let groups = config.num_heads / config.num_kv_heads();
    let (key, value) = if groups > 1 {
        (key.repeat_interleave(groups, 1)?, value.repeat_interleave(groups, 1)?)
    } else {
        (key.clone(), value.clone())
    };
    let mut scores = query.mul_scalar(config.scale())?.matmul(&key.transpose(-2, -1)?)?; // [batch, heads, queries, keys]
    if let Some(bias) = args.bias {
        scores = scores.add(bias)?;
    }
    let weights = scores.softmax(-1)?;
    Ok((weights.dropout(args.dropout, args.dropout > 0.0)?.matmul(&value)?, weights))
}
