//! Operations with one result, one wrapper per line.

use super::{Tensor, wrap};
use crate::{DType, Device, Result};

/// One fallible wrapper per line: name, arguments, the tensors among them (for the error), the tch call.
macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $kind:ty),*) [$($tensor:ident),*] => |$a:ident| $call:expr;)*) => {
        impl Tensor {
            $($(#[$doc])* #[inline]
            pub fn $name(&self, $($arg: $kind),*) -> Result<Tensor> {
                let $a = &self.0;
                wrap(stringify!($name), &[self $(, $tensor)*], $call)
            })*
        }
    };
}

ops! {
    /// Elementwise sum with broadcasting.
    add(other: &Tensor) [other] => |a| a.f_add(&other.0);
    /// Elementwise difference with broadcasting.
    sub(other: &Tensor) [other] => |a| a.f_sub(&other.0);
    /// Elementwise product with broadcasting.
    mul(other: &Tensor) [other] => |a| a.f_mul(&other.0);
    /// Elementwise quotient with broadcasting.
    div(other: &Tensor) [other] => |a| a.f_div(&other.0);
    /// Adds a scalar.
    add_scalar(value: f64) [] => |a| a.f_add_scalar(value);
    /// Multiplies by a scalar.
    mul_scalar(value: f64) [] => |a| a.f_mul_scalar(value);
    /// Raises to a power.
    pow(exponent: f64) [] => |a| a.f_pow_tensor_scalar(exponent);
    /// Matrix product; leading dimensions are batched and broadcast.
    matmul(other: &Tensor) [other] => |a| a.f_matmul(&other.0);
    /// Natural exponential.
    exp() [] => |a| a.f_exp();
    /// Natural logarithm.
    log() [] => |a| a.f_log();
    /// Square root.
    sqrt() [] => |a| a.f_sqrt();
    /// One over the square root.
    rsqrt() [] => |a| a.f_rsqrt();
    /// Absolute value.
    abs() [] => |a| a.f_abs();
    /// Negation.
    neg() [] => |a| a.f_neg();
    /// Sine.
    sin() [] => |a| a.f_sin();
    /// Cosine.
    cos() [] => |a| a.f_cos();
    /// Hyperbolic tangent.
    tanh() [] => |a| a.f_tanh();
    /// Logistic sigmoid.
    sigmoid() [] => |a| a.f_sigmoid();
    /// Logarithm of the logistic sigmoid.
    log_sigmoid() [] => |a| a.f_log_sigmoid();
    /// Rectified linear unit.
    relu() [] => |a| a.f_relu();
    /// ReLU capped at six.
    relu6() [] => |a| a.f_relu6();
    /// Gaussian error linear unit, exact.
    gelu() [] => |a| a.f_gelu("none");
    /// Gaussian error linear unit, tanh approximation.
    gelu_tanh() [] => |a| a.f_gelu("tanh");
    /// Sigmoid linear unit (swish).
    silu() [] => |a| a.f_silu();
    /// Clamps to [low, high].
    clamp(low: f64, high: f64) [] => |a| a.f_clamp(low, high);
    /// Clamps from below.
    clamp_min(low: f64) [] => |a| a.f_clamp_min(low);
    /// Clamps from above.
    clamp_max(high: f64) [] => |a| a.f_clamp_max(high);
    /// Softmax along a dimension.
    softmax(dim: i64) [] => |a| a.f_softmax(dim, None);
    /// Logarithm of the softmax along a dimension.
    log_softmax(dim: i64) [] => |a| a.f_log_softmax(dim, None);
    /// Logarithm of the sum of exponentials along a dimension.
    logsumexp(dim: i64) [] => |a| a.f_logsumexp(dim, false);
    /// Sum of all values.
    sum() [] => |a| a.f_sum(None);
    /// Mean of all values.
    mean() [] => |a| a.f_mean(None);
    /// Sum along dimensions.
    sum_dim(dims: &[i64], keep: bool) [] => |a| a.f_sum_dim_intlist(dims, keep, None);
    /// Mean along dimensions.
    mean_dim(dims: &[i64], keep: bool) [] => |a| a.f_mean_dim(dims, keep, None);
    /// Maximum of all values.
    max() [] => |a| a.f_max();
    /// Minimum of all values.
    min() [] => |a| a.f_min();
    /// Maximum along a dimension.
    amax(dim: i64, keep: bool) [] => |a| a.f_amax(dim, keep);
    /// Index of the maximum along a dimension.
    argmax(dim: i64) [] => |a| a.f_argmax(dim, false);
    /// Standard deviation along dimensions (`unbiased` divides by n − 1).
    std_dim(dims: &[i64], unbiased: bool, keep: bool) [] => |a| a.f_std_dim(dims, unbiased, keep);
    /// Indices that sort the values along a dimension.
    argsort(dim: i64, descending: bool) [] => |a| a.f_argsort(dim, descending);
    /// Cumulative sum along a dimension.
    cumsum(dim: i64) [] => |a| a.f_cumsum(dim, None);
    /// The same values in another shape (one size may be −1); copies only if necessary.
    reshape(shape: &[i64]) [] => |a| a.f_reshape(shape);
    /// Merges the dimensions from `start` to `end` into one.
    flatten(start: i64, end: i64) [] => |a| a.f_flatten(start, end);
    /// Swaps two dimensions without copying.
    transpose(first: i64, second: i64) [] => |a| a.f_transpose(first, second);
    /// Reorders the dimensions without copying.
    permute(dims: &[i64]) [] => |a| a.f_permute(dims);
    /// Inserts a dimension of size one.
    unsqueeze(dim: i64) [] => |a| a.f_unsqueeze(dim);
    /// Removes a dimension of size one.
    squeeze(dim: i64) [] => |a| a.f_squeeze_dim(dim);
    /// Broadcasts to a shape without copying (−1 keeps a size).
    expand(shape: &[i64]) [] => |a| a.f_expand(shape, false);
    /// `length` entries from `start` along a dimension, without copying.
    narrow(dim: i64, start: i64, length: i64) [] => |a| a.f_narrow(dim, start, length);
    /// One entry along a dimension, without copying.
    select(dim: i64, index: i64) [] => |a| a.f_select(dim, index);
    /// The entries at `index` (int64) along a dimension.
    index_select(dim: i64, index: &Tensor) [index] => |a| a.f_index_select(dim, &index.0);
    /// For each position, the entry at `index` (int64) along a dimension.
    gather(dim: i64, index: &Tensor) [index] => |a| a.f_gather(dim, &index.0, false);
    /// Repeats each entry along a dimension.
    repeat_interleave(times: i64, dim: i64) [] => |a| a.f_repeat_interleave_self_int(times, dim, None);
    /// The same values, contiguous in memory.
    contiguous() [] => |a| a.f_contiguous();
    /// A copy with its own memory.
    copy() [] => |a| a.f_empty_like().and_then(|mut t| t.f_copy_(a).map(|()| t));
    /// The same values without gradients, sharing memory.
    detach() [] => |a| a.f_detach();
    /// Fills with `value` where `mask` (bool) is true.
    // As a tensor, because tch's scalars panic if the operation fails.
    masked_fill(mask: &Tensor, value: f64) [mask] => |a| a.f_masked_fill_tensor(&mask.0, &tch::Tensor::from(value));
    /// Values of self where `condition` (bool) is true, of `other` elsewhere.
    where_cond(condition: &Tensor, other: &Tensor) [condition, other] => |a| a.f_where_self(&condition.0, &other.0);
    /// Elementwise equality.
    eq(other: &Tensor) [other] => |a| a.f_eq_tensor(&other.0);
    /// Elementwise equality with a scalar.
    eq_scalar(value: f64) [] => |a| a.f_eq(value);
    /// Elementwise self > other.
    gt(other: &Tensor) [other] => |a| a.f_gt_tensor(&other.0);
    /// Elementwise self > value.
    gt_scalar(value: f64) [] => |a| a.f_gt(value);
    /// Elementwise self < other.
    lt(other: &Tensor) [other] => |a| a.f_lt_tensor(&other.0);
    /// Elementwise self <= other.
    le(other: &Tensor) [other] => |a| a.f_le_tensor(&other.0);
    /// Elementwise and of bools.
    logical_and(other: &Tensor) [other] => |a| a.f_logical_and(&other.0);
    /// Elementwise or of bools.
    logical_or(other: &Tensor) [other] => |a| a.f_logical_or(&other.0);
    /// Elementwise not of bools.
    logical_not() [] => |a| a.f_logical_not();
    /// Lower triangle of the last two dimensions.
    tril(diagonal: i64) [] => |a| a.f_tril(diagonal);
    /// The diagonal of a matrix.
    diagonal() [] => |a| a.f_diagonal(0, 0, 1);
    /// Pads the last dimensions with a constant; `pad` holds (left, right) from the last dimension backwards.
    pad(pad: &[i64], value: f64) [] => |a| a.f_pad(pad, "constant", value);
    /// Pads the last dimensions by reflection.
    pad_reflect(pad: &[i64]) [] => |a| a.f_pad(pad, "reflect", None);
    /// Adaptive average pooling of the last two dimensions to this size.
    adaptive_avg_pool2d(size: &[i64]) [] => |a| a.f_adaptive_avg_pool2d(size);
    /// Max pooling of the last two dimensions; `ceil_mode` also uses windows that reach past the end.
    max_pool2d(kernel: [i64; 2], stride: [i64; 2], padding: [i64; 2], ceil_mode: bool) []
        => |a| a.f_max_pool2d(kernel, stride, padding, [1, 1], ceil_mode);
    /// Converts the element type; the same tensor if it already has it.
    to_dtype(dtype: DType) [] => |a| a.f_to_kind(dtype.tch());
    /// Moves to a device; the same tensor if it is already there.
    to_device(device: Device) [] => |a| a.f_to_device(device.tch());
    /// Zeros of the same shape, dtype and device.
    zeros_like() [] => |a| a.f_zeros_like();
    /// Ones of the same shape, dtype and device.
    ones_like() [] => |a| a.f_ones_like();
    /// Euclidean norm along a dimension.
    norm(dim: i64, keep: bool) [] => |a| a.f_norm_scalaropt_dim(2.0, dim, keep);
    /// Euclidean norm of all values.
    norm_all() [] => |a| a.f_norm();
    /// Shifts the values along dimensions, cyclically.
    roll(shifts: &[i64], dims: &[i64]) [] => |a| a.f_roll(shifts, dims);
    /// Average pooling of the last two dimensions, without overlap.
    avg_pool2d(kernel: i64) [] => |a| a.f_avg_pool2d([kernel; 2], [kernel; 2], [0; 2], false, true, None);
    /// `log(1 + exp(x))`.
    softplus() [] => |a| a.f_softplus();
    /// Logarithm of the gamma function.
    lgamma() [] => |a| a.f_lgamma();
    /// Derivative of the logarithm of the gamma function.
    digamma() [] => |a| a.f_digamma();
    /// Elementwise maximum.
    maximum(other: &Tensor) [other] => |a| a.f_maximum(&other.0);
    /// Elementwise minimum.
    minimum(other: &Tensor) [other] => |a| a.f_minimum(&other.0);
    /// Upper triangle of the last two dimensions.
    triu(diagonal: i64) [] => |a| a.f_triu(diagonal);
    /// Whether each value is finite.
    isfinite() [] => |a| a.f_isfinite();
    /// Indices of the nonzero (or true) values of a vector, int64.
    nonzero() [] => |a| a.f_nonzero().and_then(|p| p.f_reshape(-1));
    /// Reverses dimensions.
    flip(dims: &[i64]) [] => |a| a.f_flip(dims);
    /// Adds `source` at the positions `index` (int64) along a dimension.
    scatter_add(dim: i64, index: &Tensor, source: &Tensor) [index, source] => |a| a.f_scatter_add(dim, &index.0, &source.0);
    /// One-hot vectors of class indices (int64), `[…, classes]`.
    one_hot(classes: i64) [] => |a| a.f_one_hot(classes);
    /// Euclidean distances between the rows of two matrices, `[rows, other rows]`.
    cdist(other: &Tensor) [other] => |a| tch::Tensor::f_cdist(a, &other.0, 2.0, None);
    /// Median of all values (the lower of two middle values).
    median() [] => |a| a.f_median();
    /// Cholesky factor (lower triangle) of a symmetric positive definite matrix.
    cholesky() [] => |a| a.f_linalg_cholesky(false);
    /// Solution X of `self · X = other`.
    solve(other: &Tensor) [other] => |a| tch::Tensor::f_linalg_solve(a, &other.0, true);
    /// Solution X of `self · X = other` for a triangular matrix.
    solve_triangular(other: &Tensor, upper: bool) [other] => |a| a.f_linalg_solve_triangular(&other.0, upper, true, false);
    /// Sign of each value: −1, 0 or 1.
    sign() [] => |a| a.f_sign();
    /// Mean cross-entropy of logits `[batch, classes]` with class indices `[batch]`; rows of class `ignore_index` are
    /// left out.
    cross_entropy(target: &Tensor, ignore_index: i64, label_smoothing: f64) [target]
        => |a| a.f_cross_entropy_loss::<tch::Tensor>(&target.0, None, tch::Reduction::Mean, ignore_index, label_smoothing);
}
