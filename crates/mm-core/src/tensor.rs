//! mm's own tensor over libtorch's: a curated set of operations in the field's names, each fallible, so that a wrong shape,
//! dtype or device is an [`Error`] that names the operation and what it found, and never a panic.

use crate::{DType, Device, Error, Result, seed::Rng};
use std::fmt;
use tch::TchError;

/// An n-dimensional array on a [`Device`], with automatic differentiation. Cloning is cheap and shares the numbers.
pub struct Tensor(pub(crate) tch::Tensor);

impl Clone for Tensor {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

/// A Rust number type that a tensor can hold.
pub trait Element: tch::kind::Element + Copy + Default {}
impl Element for f32 {}
impl Element for f64 {}
impl Element for i64 {}
impl Element for i32 {}
impl Element for u8 {}
impl Element for bool {}

/// How [`Tensor::interpolate`] computes pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest input pixel.
    Nearest,
    /// Bilinear, without antialiasing.
    Bilinear {
        /// Whether the centers of the corner pixels coincide in input and output.
        align_corners: bool,
    },
    /// Bicubic, without antialiasing.
    Bicubic {
        /// Whether the centers of the corner pixels coincide in input and output.
        align_corners: bool,
    },
    /// Bicubic with a filter that widens with the reduction.
    BicubicAntialias,
}

/// Runs `body` without recording gradients.
pub fn no_grad<T>(body: impl FnOnce() -> T) -> T {
    let _guard = tch::no_grad_guard();
    body()
}

/// Runs `body` with gradients recorded, also inside [`no_grad`].
pub fn enable_grad<T>(body: impl FnOnce() -> T) -> T {
    tch::with_grad(body)
}

#[cold]
fn refused(op: &'static str, inputs: &[&Tensor], error: &TchError) -> Error {
    let found = match inputs {
        [] => "no tensor".to_owned(),
        some => some.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" and "),
    };
    let text = match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    // libtorch appends its own C++ stack; the first line is what a person can use.
    let text = text.split("\nException raised from").next().unwrap_or("").trim();
    Error::Tensor { op, found, reason: text.to_owned() }
}

#[inline]
pub(crate) fn one(op: &'static str, inputs: &[&Tensor], result: Result<tch::Tensor, TchError>) -> Result<Tensor> {
    match result {
        Ok(tensor) => Ok(Tensor(tensor)),
        Err(error) => Err(refused(op, inputs, &error)),
    }
}

/// Bits of libtorch's generator on the processor.
fn drawn() -> Result<u64> {
    let zero = tch::Tensor::f_zeros([1], (tch::Kind::Int64, tch::Device::Cpu));
    let bits = zero.and_then(|mut t| t.f_random_()).and_then(|t| t.f_int64_value(&[0]));
    bits.map(|b| b as u64).map_err(|e| refused("random bits", &[], &e))
}

/// Zero with probability `rate`, else what keeps the mean: libtorch draws number by number from a generator made for quality, which costs a
/// small network a sixth of its step; four of these come from one draw of a fast one, the rate met to 1/65536.
fn kept(shape: &[i64], rate: f64, seed: u64) -> Result<Tensor> {
    let fail = |e: TchError| refused("dropout", &[], &e);
    let mut random = Rng::new(&[seed]);
    let mask = tch::Tensor::f_empty(shape, (tch::Kind::Float, tch::Device::Cpu)).map_err(fail)?;
    let least = (rate * 65536.0).round() as u64;
    let scale = (65536.0 / (65536 - least.min(65535)) as f32).to_bits();
    // SAFETY: memory of a new tensor of so many float32 numbers, which nothing else knows.
    let numbers = unsafe { std::slice::from_raw_parts_mut(mask.data_ptr().cast::<f32>(), mask.numel()) };
    for four in numbers.chunks_mut(4) {
        let bits = random.next_u64();
        for (number, place) in four.iter_mut().zip([0, 16, 32, 48]) {
            *number = f32::from_bits(scale * u32::from((bits >> place) & 0xFFFF >= least));
        }
    }
    Ok(Tensor(mask))
}

/// Writes one fallible wrapper a line: name, arguments, the tensors among them (for the error), the tch call.
macro_rules! ops {
    ($($(#[$doc:meta])* $name:ident($($arg:ident: $kind:ty),*) [$($tensor:ident),*] => |$a:ident| $call:expr;)*) => {
        impl Tensor {
            $($(#[$doc])* #[inline]
            pub fn $name(&self, $($arg: $kind),*) -> Result<Tensor> {
                let $a = &self.0;
                one(stringify!($name), &[self $(, $tensor)*], $call)
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
    /// Adds a number.
    add_scalar(value: f64) [] => |a| a.f_add_scalar(value);
    /// Multiplies by a number.
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
    /// Rectifier.
    relu() [] => |a| a.f_relu();
    /// Rectifier capped at six.
    relu6() [] => |a| a.f_relu6();
    /// Gaussian error linear unit, exact.
    gelu() [] => |a| a.f_gelu("none");
    /// Gaussian error linear unit, tanh approximation.
    gelu_tanh() [] => |a| a.f_gelu("tanh");
    /// Sigmoid linear unit (swish).
    silu() [] => |a| a.f_silu();
    /// Clamps into [low, high].
    clamp(low: f64, high: f64) [] => |a| a.f_clamp(low, high);
    /// Clamps from below.
    clamp_min(low: f64) [] => |a| a.f_clamp_min(low);
    /// Softmax along a dimension.
    softmax(dim: i64) [] => |a| a.f_softmax(dim, None);
    /// Logarithm of the softmax along a dimension.
    log_softmax(dim: i64) [] => |a| a.f_log_softmax(dim, None);
    /// Logarithm of the sum of exponentials along a dimension.
    logsumexp(dim: i64) [] => |a| a.f_logsumexp(dim, false);
    /// Sum of all numbers.
    sum() [] => |a| a.f_sum(None);
    /// Mean of all numbers.
    mean() [] => |a| a.f_mean(None);
    /// Sum along dimensions.
    sum_dim(dims: &[i64], keep: bool) [] => |a| a.f_sum_dim_intlist(dims, keep, None);
    /// Mean along dimensions.
    mean_dim(dims: &[i64], keep: bool) [] => |a| a.f_mean_dim(dims, keep, None);
    /// Largest of all numbers.
    max() [] => |a| a.f_max();
    /// Smallest of all numbers.
    min() [] => |a| a.f_min();
    /// Largest along a dimension.
    amax(dim: i64, keep: bool) [] => |a| a.f_amax(dim, keep);
    /// Index of the largest along a dimension.
    argmax(dim: i64) [] => |a| a.f_argmax(dim, false);
    /// Standard deviation along dimensions (`unbiased` divides by n − 1).
    std_dim(dims: &[i64], unbiased: bool, keep: bool) [] => |a| a.f_std_dim(dims, unbiased, keep);
    /// Order of the numbers along a dimension.
    argsort(dim: i64, descending: bool) [] => |a| a.f_argsort(dim, descending);
    /// Running sum along a dimension.
    cumsum(dim: i64) [] => |a| a.f_cumsum(dim, None);
    /// Same numbers in another shape (one size may be −1); copies only when it must.
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
    /// For each place, the entry that `index` names along a dimension.
    gather(dim: i64, index: &Tensor) [index] => |a| a.f_gather(dim, &index.0, false);
    /// Repeats each entry along a dimension.
    repeat_interleave(times: i64, dim: i64) [] => |a| a.f_repeat_interleave_self_int(times, dim, None);
    /// Lays the numbers out in order in memory.
    contiguous() [] => |a| a.f_contiguous();
    /// A copy with its own memory.
    copy() [] => |a| a.f_empty_like().and_then(|mut t| t.f_copy_(a).map(|()| t));
    /// The same numbers outside the graph of gradients.
    detach() [] => |a| a.f_detach();
    /// Fills with `value` where `mask` (bool) is true.
    // As a tensor: tch's scalars panic when the operation that they go into fails.
    masked_fill(mask: &Tensor, value: f64) [mask] => |a| a.f_masked_fill_tensor(&mask.0, &tch::Tensor::from(value));
    /// Takes from self where `condition` (bool) is true, else from `other`.
    where_cond(condition: &Tensor, other: &Tensor) [condition, other] => |a| a.f_where_self(&condition.0, &other.0);
    /// Elementwise equality.
    eq(other: &Tensor) [other] => |a| a.f_eq_tensor(&other.0);
    /// Elementwise equality with a number.
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
    /// Diagonal of a matrix.
    diagonal() [] => |a| a.f_diagonal(0, 0, 1);
    /// Pads the last dimensions; `pad` is (left, right) from the last dimension on.
    pad(pad: &[i64], value: f64) [] => |a| a.f_pad(pad, "constant", value);
    /// Pads the last dimensions by reflection.
    pad_reflect(pad: &[i64]) [] => |a| a.f_pad(pad, "reflect", None);
    /// Adaptive average over the last two dimensions to the size wanted.
    adaptive_avg_pool2d(size: &[i64]) [] => |a| a.f_adaptive_avg_pool2d(size);
    /// Maximum over windows of the last two dimensions; `partial` also takes windows that reach beyond the end.
    max_pool2d(kernel: [i64; 2], stride: [i64; 2], padding: [i64; 2], partial: bool) []
        => |a| a.f_max_pool2d(kernel, stride, padding, [1, 1], partial);
    /// Converts the numbers' type; the same tensor when it is that already.
    to_dtype(dtype: DType) [] => |a| a.f_to_kind(dtype.tch());
    /// Moves to a device; the same tensor when it is there already.
    to_device(device: Device) [] => |a| a.f_to_device(device.tch());
    /// Zeros of the same shape, dtype and device.
    zeros_like() [] => |a| a.f_zeros_like();
    /// Ones of the same shape, dtype and device.
    ones_like() [] => |a| a.f_ones_like();
    /// Euclidean norm along a dimension.
    norm(dim: i64, keep: bool) [] => |a| a.f_norm_scalaropt_dim(2.0, dim, keep);
    /// Euclidean norm of all numbers.
    norm_all() [] => |a| a.f_norm();
    /// Shifts the numbers along dimensions by so many places; what falls off one end comes in at the other.
    roll(shifts: &[i64], dims: &[i64]) [] => |a| a.f_roll(shifts, dims);
    /// Mean over windows of the last two dimensions, each beside the other.
    avg_pool2d(kernel: i64) [] => |a| a.f_avg_pool2d([kernel; 2], [kernel; 2], [0; 2], false, true, None);
    /// `log(1 + exp(x))`.
    softplus() [] => |a| a.f_softplus();
    /// Logarithm of the gamma function.
    lgamma() [] => |a| a.f_lgamma();
    /// Its slope.
    digamma() [] => |a| a.f_digamma();
    /// Elementwise larger.
    maximum(other: &Tensor) [other] => |a| a.f_maximum(&other.0);
    /// Elementwise smaller.
    minimum(other: &Tensor) [other] => |a| a.f_minimum(&other.0);
    /// Upper triangle of the last two dimensions.
    triu(diagonal: i64) [] => |a| a.f_triu(diagonal);
    /// Whether each number is neither infinite nor not a number.
    isfinite() [] => |a| a.f_isfinite();
    /// Places of what is true (or not zero) in a vector, `[some]` int64.
    nonzero() [] => |a| a.f_nonzero().and_then(|p| p.f_reshape(-1));
    /// In the opposite order along dimensions.
    flip(dims: &[i64]) [] => |a| a.f_flip(dims);
    /// Adds `source` to the places that `index` (int64) names along a dimension.
    scatter_add(dim: i64, index: &Tensor, source: &Tensor) [index, source] => |a| a.f_scatter_add(dim, &index.0, &source.0);
    /// Class numbers (int64) as rows with a one, `[…, classes]`.
    one_hot(classes: i64) [] => |a| a.f_one_hot(classes);
    /// Euclidean distances between the rows of two matrices, `[rows, other rows]`.
    cdist(other: &Tensor) [other] => |a| tch::Tensor::f_cdist(a, &other.0, 2.0, None);
    /// Median of all numbers (of two in the middle the smaller).
    median() [] => |a| a.f_median();
    /// Lower triangle whose product with its transposition is this symmetric positive definite matrix.
    cholesky() [] => |a| a.f_linalg_cholesky(false);
    /// The X of `self · X = other`.
    solve(other: &Tensor) [other] => |a| tch::Tensor::f_linalg_solve(a, &other.0, true);
    /// The X of `self · X = other`, self a triangle.
    solve_triangular(other: &Tensor, upper: bool) [other] => |a| a.f_linalg_solve_triangular(&other.0, upper, true, false);
    /// −1, 0 or 1.
    sign() [] => |a| a.f_sign();
    /// Cross-entropy of logits `[batch, classes]` with class numbers `[batch]`; `ignored` is left out; mean over the rest.
    cross_entropy(target: &Tensor, ignored: i64, smoothing: f64) [target]
        => |a| a.f_cross_entropy_loss::<tch::Tensor>(&target.0, None, tch::Reduction::Mean, ignored, smoothing);
}

impl Tensor {
    /// A tensor from Rust numbers, one dimension, on the processor.
    pub fn from_slice<T: Element>(values: &[T]) -> Result<Self> {
        // SAFETY: the element types are plain numbers, whose bytes may be read.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        one("from_slice", &[], filled(bytes, &[values.len() as i64], T::KIND))
    }

    /// A tensor from Rust numbers in a shape, on the processor.
    pub fn from_vec<T: Element>(values: &[T], shape: &[i64]) -> Result<Self> {
        let count: i64 = shape.iter().product();
        if usize::try_from(count).ok() != Some(values.len()) {
            return Err(Error::shape("from_vec", shape, format!("a shape of {} numbers", values.len())));
        }
        Self::from_slice(values)?.reshape(shape)
    }

    /// A tensor from raw bytes (little-endian) in a shape.
    pub fn from_bytes(bytes: &[u8], shape: &[i64], dtype: DType) -> Result<Self> {
        let count: i64 = shape.iter().product();
        if usize::try_from(count).ok().map(|n| n * dtype.size()) != Some(bytes.len()) {
            return Err(Error::shape("from_bytes", shape, format!("a shape of {} bytes of {dtype:?}", bytes.len())));
        }
        one("from_bytes", &[], filled(bytes, shape, dtype.tch()))
    }

    /// A tensor over memory that something else keeps.
    ///
    /// # Safety
    /// The memory must hold that many numbers, be aligned for them, writable, and live as long as the program.
    pub(crate) unsafe fn over(memory: *const u8, shape: &[i64], dtype: DType) -> Result<Self> {
        let mut strides = vec![1i64; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i].max(1);
        }
        // SAFETY: the caller's promise.
        let made = unsafe { tch::Tensor::f_from_blob(memory, shape, &strides, dtype.tch(), tch::Device::Cpu) };
        one("over", &[], made)
    }

    /// Zeros.
    pub fn zeros(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        one("zeros", &[], tch::Tensor::f_zeros(shape, (dtype.tch(), device.tch())))
    }

    /// Memory with whatever stands in it, to be overwritten.
    pub fn empty(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        one("empty", &[], tch::Tensor::f_empty(shape, (dtype.tch(), device.tch())))
    }

    /// Ones.
    pub fn ones(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        one("ones", &[], tch::Tensor::f_ones(shape, (dtype.tch(), device.tch())))
    }

    /// One number everywhere.
    pub fn full(shape: &[i64], value: f64, dtype: DType, device: Device) -> Result<Self> {
        one("full", &[], tch::Tensor::f_full(shape, value, (dtype.tch(), device.tch())))
    }

    /// The whole numbers below `count` in a random order, from libtorch's seeded generator.
    pub fn randperm(count: i64, device: Device) -> Result<Self> {
        one("randperm", &[], tch::Tensor::f_randperm(count, (tch::Kind::Int64, device.tch())))
    }

    /// Standard normal numbers from libtorch's seeded generator.
    pub fn randn(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        one("randn", &[], tch::Tensor::f_randn(shape, (dtype.tch(), device.tch())))
    }

    /// Uniform numbers in [0, 1) from libtorch's seeded generator.
    pub fn rand(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        one("rand", &[], tch::Tensor::f_rand(shape, (dtype.tch(), device.tch())))
    }

    /// The whole numbers from `start` up to but without `end`.
    pub fn arange(start: i64, end: i64, device: Device) -> Result<Self> {
        one("arange", &[], tch::Tensor::f_arange_start(start, end, (tch::Kind::Int64, device.tch())))
    }

    /// The identity matrix.
    pub fn eye(size: i64, dtype: DType, device: Device) -> Result<Self> {
        one("eye", &[], tch::Tensor::f_eye(size, (dtype.tch(), device.tch())))
    }

    /// Joins tensors along a dimension that exists.
    pub fn cat(tensors: &[&Tensor], dim: i64) -> Result<Self> {
        let raw: Vec<&tch::Tensor> = tensors.iter().map(|t| &t.0).collect();
        one("cat", tensors, tch::Tensor::f_cat(&raw, dim))
    }

    /// Joins tensors of one shape along a new dimension.
    pub fn stack(tensors: &[&Tensor], dim: i64) -> Result<Self> {
        let raw: Vec<&tch::Tensor> = tensors.iter().map(|t| &t.0).collect();
        one("stack", tensors, tch::Tensor::f_stack(&raw, dim))
    }

    /// [`Tensor::stack`] along a new first dimension by the calling thread alone. Where many threads stack at once, as a loader's do,
    /// libtorch starts a team for each of them, and the teams wait for each other's cores.
    pub fn stack_single_threaded(tensors: &[&Tensor]) -> Result<Self> {
        let Some(first) = tensors.first() else { return Self::stack(tensors, 0) };
        let (shape, kind) = (first.shape(), first.0.kind());
        let plain =
            |t: &&Tensor| t.device() == Device::Cpu && t.0.is_contiguous() && t.0.kind() == kind && t.shape() == shape;
        if !tensors.iter().all(plain) {
            return Self::stack(tensors, 0);
        }
        let sizes: Vec<i64> = std::iter::once(tensors.len() as i64).chain(shape).collect();
        let out = one("stack", tensors, tch::Tensor::f_empty(&sizes, (kind, tch::Device::Cpu)))?;
        let bytes = first.0.numel() * kind.elt_size_in_bytes();
        for (place, tensor) in tensors.iter().enumerate() {
            // SAFETY: both lie one number after another in the processor's memory; the new tensor has room for as many pieces of these bytes.
            unsafe {
                let to = out.0.data_ptr().cast::<u8>().add(place * bytes);
                std::ptr::copy_nonoverlapping(tensor.0.data_ptr().cast::<u8>(), to, bytes);
            }
        }
        Ok(out)
    }

    /// `input · weightᵀ + bias`.
    #[inline]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        one("linear", &[self, weight], self.0.f_linear(&weight.0, bias.map(|b| &b.0)))
    }

    /// Rows of self `[entries, width]` by number: `[…]` int64 to `[…, width]`.
    pub fn embedding(&self, indices: &Tensor) -> Result<Self> {
        one("embedding", &[self, indices], tch::Tensor::f_embedding(&self.0, &indices.0, -1, false, false))
    }

    /// Normalises the last dimension to mean zero and variance one, then scales and shifts (Ba 2016).
    pub fn layer_norm(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, epsilon: f64) -> Result<Self> {
        let width = self.shape().last().copied().unwrap_or(1);
        let result = self.0.f_layer_norm(width, weight.map(|t| &t.0), bias.map(|t| &t.0), epsilon, true);
        one("layer_norm", &inputs(self, weight), result)
    }

    /// Divides the last dimension by its root mean square, then scales (Zhang 2019).
    pub fn rms_norm(&self, weight: Option<&Tensor>, epsilon: f64) -> Result<Self> {
        let width = self.shape().last().copied().unwrap_or(1);
        one("rms_norm", &inputs(self, weight), self.0.f_rms_norm(width, weight.map(|t| &t.0), epsilon))
    }

    /// Normalises groups of channels (Wu 2018).
    pub fn group_norm(&self, groups: i64, weight: &Tensor, bias: &Tensor, epsilon: f64) -> Result<Self> {
        one("group_norm", &[self, weight], self.0.f_group_norm(groups, Some(&weight.0), Some(&bias.0), epsilon, true))
    }

    /// Normalises channels by the batch's statistics while training, by the running ones otherwise (Ioffe 2015).
    #[allow(clippy::too_many_arguments)]
    pub fn batch_norm(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        mean: &Tensor,
        variance: &Tensor,
        train: bool,
        momentum: f64,
        epsilon: f64,
    ) -> Result<Self> {
        let (w, b, m, v) = (Some(&weight.0), Some(&bias.0), Some(&mean.0), Some(&variance.0));
        one("batch_norm", &[self, weight], self.0.f_batch_norm(w, b, m, v, train, momentum, epsilon, true))
    }

    /// One-dimensional convolution of `[batch, channels, length]`.
    pub fn conv1d(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: i64,
        padding: i64,
        dilation: i64,
        groups: i64,
    ) -> Result<Self> {
        one(
            "conv1d",
            &[self, weight],
            self.0.f_conv1d(&weight.0, bias.map(|b| &b.0), stride, padding, dilation, groups),
        )
    }

    /// Two-dimensional convolution of `[batch, channels, height, width]`.
    pub fn conv2d(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        stride: [i64; 2],
        padding: [i64; 2],
        groups: i64,
    ) -> Result<Self> {
        one("conv2d", &[self, weight], self.0.f_conv2d(&weight.0, bias.map(|b| &b.0), stride, padding, [1, 1], groups))
    }

    /// `relu(conv2d(x) + residual)` in one pass, by cuDNN; nothing where it will not do it. It has no derivative.
    pub(crate) fn conv2d_relu(
        &self,
        weight: &Tensor,
        bias: Option<&Tensor>,
        residual: Option<&Tensor>,
        [stride, padding, groups]: [i64; 3],
    ) -> Option<Self> {
        let (kernel, bias) = (&weight.0, bias.map(|b| &b.0));
        let (stride, padding) = ([stride; 2], [padding; 2]);
        match residual {
            Some(r) => self.0.f_cudnn_convolution_add_relu(kernel, &r.0, 1.0, bias, stride, padding, [1, 1], groups),
            None => self.0.f_cudnn_convolution_relu(kernel, bias, stride, padding, [1, 1], groups),
        }
        .ok()
        .map(Self)
    }

    /// Three-dimensional convolution of `[batch, channels, time, height, width]`, without padding.
    pub fn conv3d(&self, weight: &Tensor, bias: Option<&Tensor>, stride: [i64; 3]) -> Result<Self> {
        one("conv3d", &[self, weight], self.0.f_conv3d(&weight.0, bias.map(|b| &b.0), stride, [0; 3], [1; 3], 1))
    }

    /// Attention through libtorch's fused kernels: self is the query `[batch, heads, queries, width]`; `mask` is added to the
    /// scores and broadcasts to `[batch, heads, queries, keys]`.
    pub fn fused_attention(
        &self,
        key: &Tensor,
        value: &Tensor,
        mask: Option<&Tensor>,
        dropout: f64,
        causal: bool,
        scale: Option<f64>,
    ) -> Result<Self> {
        let grouped = self.shape().get(1) != key.shape().get(1);
        let mask = mask.map(|m| &m.0);
        let result = tch::Tensor::f_scaled_dot_product_attention(
            &self.0, &key.0, &value.0, mask, dropout, causal, scale, grouped,
        );
        one("fused_attention", &[self, key, value], result)
    }

    /// Zeroes each number with probability `rate` and scales the rest, while training. Which ones is a function of libtorch's generator.
    pub fn dropout(&self, rate: f64, train: bool) -> Result<Self> {
        if !train || rate == 0.0 {
            return Ok(self.clone());
        }
        if (0.0..1.0).contains(&rate) && self.device() == Device::Cpu && self.dtype()? == DType::F32 {
            return self.mul(&kept(&self.shape(), rate, drawn()?)?);
        }
        one("dropout", &[self], self.0.f_dropout(rate, true))
    }

    /// `[batch, channels, height, width]` with the channels of each place side by side in memory, as convolutions like them; what is made of
    /// it lies so too.
    pub fn channels_last(&self) -> Result<Self> {
        self.permute(&[0, 2, 3, 1])?.contiguous()?.permute(&[0, 3, 1, 2])
    }

    /// Resizes images `[batch, channels, height, width]` to `size` (height, width), as `torch.nn.functional.interpolate`.
    pub fn interpolate(&self, size: [i64; 2], mode: Interpolation) -> Result<Self> {
        let result = match mode {
            Interpolation::Nearest => self.0.f_upsample_nearest2d(size, None, None),
            Interpolation::Bilinear { align_corners } => self.0.f_upsample_bilinear2d(size, align_corners, None, None),
            Interpolation::Bicubic { align_corners } => self.0.f_upsample_bicubic2d(size, align_corners, None, None),
            Interpolation::BicubicAntialias => self.0.f_internal_upsample_bicubic2d_aa(size, false, None, None),
        };
        one("interpolate", &[self], result)
    }

    /// Parts of these sizes along a dimension.
    pub fn split(&self, sizes: &[i64], dim: i64) -> Result<Vec<Self>> {
        match self.0.f_split_with_sizes(sizes, dim) {
            Ok(parts) => Ok(parts.into_iter().map(Self).collect()),
            Err(error) => Err(refused("split", &[self], &error)),
        }
    }

    /// Itself where positive, `slope` times itself elsewhere.
    pub fn leaky_relu(&self, slope: f64) -> Result<Self> {
        // tch's own knows the usual slope only; the operator's way back is the same map of its first argument.
        let result = self.0.f_detach().and_then(|signs| signs.f_leaky_relu_backward(&self.0, slope, false));
        one("leaky_relu", &[self], result)
    }

    /// One layer of long short-term memory (Hochreiter 1997) over `[batch, length, input]` from states of zero; `weights` are PyTorch's
    /// four (input, hidden, and their biases).
    pub fn lstm(&self, weights: [&Tensor; 4], hidden: i64) -> Result<Self> {
        let run = || {
            let rows = self.0.size().first().copied().unwrap_or(0);
            let start = tch::Tensor::f_zeros([1, rows, hidden], (self.0.f_kind()?, self.0.device()))?;
            let weights = weights.map(|w| &w.0);
            // cuDNN keeps what a gradient needs only when told that it trains.
            let train = self.0.requires_grad() || weights[0].requires_grad();
            self.0.f_lstm(&[&start, &start], &weights, true, 1, 0.0, train, false, true)
        };
        one("lstm", &[self, weights[0]], run().map(|(all, ..)| all))
    }

    /// Lays a layer's four weights side by side in memory, where cuDNN wants them; on the processor they stay as they are.
    pub(crate) fn lay_lstm_weights(weights: [&Tensor; 4], input: i64, hidden: i64) -> Result<()> {
        if weights[0].device() == Device::Cpu {
            return Ok(());
        }
        let all = weights.map(|w| &w.0);
        let lay = || {
            // 2 stands for long short-term memory; the weights become views of what is returned.
            tch::Tensor::f_internal_cudnn_rnn_flatten_weight(&all, 4, input, 2, hidden, 0, 1, true, false)
        };
        one("lay_lstm_weights", &weights, tch::no_grad(lay)).map(drop)
    }

    /// One step of it: input `[batch, input]`, states `[batch, hidden]`; the new hidden and cell states.
    pub fn lstm_cell(&self, hidden: &Tensor, cell: &Tensor, weights: [&Tensor; 4]) -> Result<(Self, Self)> {
        let [input, own, input_bias, own_bias] = weights.map(|w| &w.0);
        match self.0.f_lstm_cell(&[&hidden.0, &cell.0], input, own, Some(input_bias), Some(own_bias)) {
            Ok((hidden, cell)) => Ok((Self(hidden), Self(cell))),
            Err(error) => Err(refused("lstm_cell", &[self, hidden, cell], &error)),
        }
    }

    /// The `k` largest along the last dimension, largest first: values and indices.
    pub fn topk(&self, k: i64) -> Result<(Self, Self)> {
        match self.0.f_topk(k, -1, true, true) {
            Ok((values, indices)) => Ok((Self(values), Self(indices))),
            Err(error) => Err(refused("topk", &[self], &error)),
        }
    }

    /// Singular value decomposition `U · diag(S) · Vᵀ`, thin: (U, S, Vᵀ).
    pub fn svd(&self) -> Result<(Self, Self, Self)> {
        // `linalg_svd` wants a driver's name, which the processor refuses; `svd` does the same and gives V instead of Vᵀ.
        match self.0.f_svd(true, true).and_then(|(u, s, v)| Ok((u, s, v.f_transpose(0, 1)?))) {
            Ok((u, s, v)) => Ok((Self(u), Self(s), Self(v))),
            Err(error) => Err(refused("svd", &[self], &error)),
        }
    }

    /// Eigenvalues, smallest first, and eigenvectors (columns) of a symmetric matrix.
    pub fn eigh(&self) -> Result<(Self, Self)> {
        match self.0.f_linalg_eigh("L") {
            Ok((values, vectors)) => Ok((Self(values), Self(vectors))),
            Err(error) => Err(refused("eigh", &[self], &error)),
        }
    }

    /// The numbers along a dimension in order, and where they stood.
    pub fn sort(&self, dim: i64, descending: bool) -> Result<(Self, Self)> {
        match self.0.f_sort(dim, descending) {
            Ok((values, places)) => Ok((Self(values), Self(places))),
            Err(error) => Err(refused("sort", &[self], &error)),
        }
    }

    /// Gradients of this single number with respect to `inputs`, themselves differentiable: for penalties on gradients.
    pub fn autograd_grad(&self, inputs: &[&Tensor]) -> Result<Vec<Self>> {
        let raw: Vec<&tch::Tensor> = inputs.iter().map(|t| &t.0).collect();
        match tch::Tensor::f_run_backward(&[&self.0], &raw, true, true) {
            Ok(gradients) => Ok(gradients.into_iter().map(Self).collect()),
            Err(error) => Err(refused("autograd_grad", &[self], &error)),
        }
    }

    /// Circular convolution along the last dimension, of that length, by Fourier transformation.
    pub fn circular_convolution(&self, other: &Tensor, length: i64) -> Result<Self> {
        let run = || {
            let transform = |t: &tch::Tensor| t.f_fft_rfft(length, -1, "backward");
            transform(&self.0)?.f_mul(&transform(&other.0)?)?.f_fft_irfft(length, -1, "backward")
        };
        one("circular_convolution", &[self, other], run())
    }

    /// Scales the last dimension to unit length; a zero row stays zero.
    pub fn normalize(&self) -> Result<Self> {
        self.div(&self.norm(-1, true)?.clamp_min(1e-12)?)
    }

    /// Shape, one size a dimension.
    pub fn shape(&self) -> Vec<i64> {
        self.0.size()
    }

    /// Size of one dimension; negative numbers count from the last.
    pub fn size(&self, dim: i64) -> Result<i64> {
        let shape = self.shape();
        let place = if dim < 0 { dim + shape.len() as i64 } else { dim };
        usize::try_from(place).ok().and_then(|p| shape.get(p).copied()).ok_or_else(|| Error::Shape {
            what: format!("size({dim})"),
            wanted: format!("at least {} dimensions", if dim < 0 { -dim } else { dim + 1 }),
            found: shape,
        })
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.dim()
    }

    /// Number of numbers.
    pub fn numel(&self) -> usize {
        self.0.numel()
    }

    /// Type of the numbers.
    pub fn dtype(&self) -> Result<DType> {
        self.0
            .f_kind()
            .ok()
            .and_then(DType::from_tch)
            .ok_or_else(|| Error::Sample("a tensor of a type mm does not use".into()))
    }

    /// Where it lives.
    pub fn device(&self) -> Device {
        Device::from_tch(self.0.device())
    }

    /// The numbers in order, converted to `T` where they are of another type.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let run = || -> Result<Vec<T>, TchError> {
            let flat = self.0.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(T::KIND)?.f_contiguous()?;
            let mut values = vec![T::default(); flat.numel()];
            flat.f_copy_data(&mut values, flat.numel())?;
            Ok(values)
        };
        run().map_err(|error| refused("to_vec", &[self], &error))
    }

    /// The only number of a tensor that holds one.
    pub fn to_f64(&self) -> Result<f64> {
        if self.numel() != 1 {
            return Err(Error::shape("to_f64", &self.shape(), "one number"));
        }
        Ok(self.to_vec::<f64>()?[0])
    }

    /// The raw bytes in order (little-endian), whatever the type.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let size = self.dtype()?.size();
        let run = || -> Result<Vec<u8>, TchError> {
            let flat = self.0.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
            let mut bytes = vec![0u8; flat.numel() * size];
            flat.f_copy_data_u8(&mut bytes, flat.numel())?;
            Ok(bytes)
        };
        run().map_err(|error| refused("to_bytes", &[self], &error))
    }

    /// Overwrites the numbers with those of `source`, in place and outside the graph of gradients.
    pub fn copy_(&self, source: &Tensor) -> Result<()> {
        let run = || {
            let _guard = tch::no_grad_guard();
            self.0.shallow_clone().f_copy_(&source.0)
        };
        run().map_err(|error| refused("copy_", &[self, source], &error))
    }

    /// In place: `self = self · scale`, outside the graph of gradients, as are the three below: what optimisers are made of.
    pub fn mul_scalar_(&self, scale: f64) -> Result<()> {
        self.in_place("scale_", &[self], |own| own.f_mul_scalar_(scale))
    }

    /// In place: `self = self · scale + other · weight`.
    pub fn scale_add_(&self, scale: f64, other: &Tensor, weight: f64) -> Result<()> {
        self.in_place("scale_add_", &[self, other], |own| {
            // A moving mean, in one pass.
            if (scale + weight - 1.0).abs() < 1e-15 && own.kind() == other.0.kind() {
                return own.f_lerp_(&other.0, weight);
            }
            let mut own =
                if (scale - 1.0).abs() > f64::EPSILON { own.f_mul_scalar_(scale)? } else { own.shallow_clone() };
            own.f_add_(&other.0.f_mul_scalar(weight)?)
        })
    }

    /// In place: `self = self + weight · a · b`.
    pub fn addcmul_(&self, a: &Tensor, b: &Tensor, weight: f64) -> Result<()> {
        self.in_place("addcmul_", &[self, a, b], |own| own.f_add_(&a.0.f_mul(&b.0)?.f_mul_scalar_(weight)?))
    }

    /// In place: `self = self + weight · a / b`.
    pub fn addcdiv_(&self, a: &Tensor, b: &Tensor, weight: f64) -> Result<()> {
        self.in_place("addcdiv_", &[self, a, b], |own| own.f_add_(&a.0.f_div(&b.0)?.f_mul_scalar_(weight)?))
    }

    fn in_place(
        &self,
        op: &'static str,
        inputs: &[&Tensor],
        body: impl FnOnce(&mut tch::Tensor) -> Result<tch::Tensor, TchError>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        body(&mut self.0.shallow_clone()).map(drop).map_err(|error| refused(op, inputs, &error))
    }

    /// In place: zeroes the gradient, if there is one.
    pub fn zero_grad(&self) {
        self.0.shallow_clone().zero_grad();
    }

    /// Sets whether gradients with respect to this tensor are recorded, in place, and returns it.
    pub fn set_requires_grad(&self, requires_grad: bool) -> Result<Self> {
        one("set_requires_grad", &[self], self.0.f_set_requires_grad(requires_grad))
    }

    /// Whether operations on this tensor are recorded for [`Tensor::backward`].
    pub fn requires_grad(&self) -> bool {
        self.0.requires_grad()
    }

    /// How often it was changed in place.
    pub(crate) fn version(&self) -> Result<i64> {
        self.0.f_internal_version().map_err(|error| refused("version", &[self], &error))
    }

    /// The gradient that the last [`Tensor::backward`] left, if any.
    pub fn grad(&self) -> Option<Self> {
        self.0.f_grad().ok().filter(tch::Tensor::defined).map(Self)
    }

    /// Gradients of this single number with respect to all that it was made of.
    pub fn backward(&self) -> Result<()> {
        self.0.f_backward().map_err(|error| refused("backward", &[self], &error))
    }

    /// A tensor that libtorch's own crate made: the one open window, for an operation that is not here.
    pub fn from_tch(tensor: tch::Tensor) -> Self {
        Self(tensor)
    }

    /// The tensor of libtorch's own crate.
    pub fn as_tch(&self) -> &tch::Tensor {
        &self.0
    }
}

/// A new tensor on the processor with these bytes, which are as many as the shape needs. (tch's own way zeroes the memory first.)
fn filled(bytes: &[u8], shape: &[i64], kind: tch::Kind) -> Result<tch::Tensor, TchError> {
    let tensor = tch::Tensor::f_empty(shape, (kind, tch::Device::Cpu))?;
    // SAFETY: a fresh contiguous tensor of that many bytes, which nothing else holds yet.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), tensor.data_ptr().cast::<u8>(), bytes.len()) };
    Ok(tensor)
}

fn inputs<'a>(first: &'a Tensor, second: Option<&'a Tensor>) -> Vec<&'a Tensor> {
    std::iter::once(first).chain(second).collect()
}

impl fmt::Debug for Tensor {
    /// `[2, 3] f32 on cpu`: what an error needs; the numbers are had by `to_vec`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = self.dtype().map_or_else(|_| "unknown".to_owned(), |d| format!("{d:?}").to_lowercase());
        write!(f, "{:?} {dtype} on {}", self.shape(), self.device())
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $scalar:ident |$v:ident| $value:expr;)*) => {$(
        impl std::ops::$trait<&Tensor> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, other: &Tensor) -> Result<Tensor> { Tensor::$method(self, other) }
        }
        impl std::ops::$trait<f64> for &Tensor {
            type Output = Result<Tensor>;
            fn $method(self, $v: f64) -> Result<Tensor> { self.$scalar($value) }
        }
    )*};
}
operators! {
    Add add add_scalar |v| v;
    Sub sub add_scalar |v| -v;
    Mul mul mul_scalar |v| v;
    Div div mul_scalar |v| 1.0 / v;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacked_alone_as_by_the_team() {
        let rows: Vec<Tensor> = (0..3).map(|_| Tensor::randn(&[4, 5], DType::F32, Device::Cpu).unwrap()).collect();
        let numbers = [Tensor::from_slice(&[1i64, 2]).unwrap(), Tensor::from_slice(&[3i64, 4]).unwrap()];
        let turned: Vec<Tensor> = rows.iter().map(|t| t.transpose(0, 1).unwrap()).collect();
        for tensors in
            [rows.iter().collect::<Vec<_>>(), numbers.iter().collect(), turned.iter().collect(), vec![&rows[0]]]
        {
            let (alone, team) = (Tensor::stack_single_threaded(&tensors).unwrap(), Tensor::stack(&tensors, 0).unwrap());
            assert_eq!((alone.shape(), alone.dtype().unwrap()), (team.shape(), team.dtype().unwrap()));
            assert_eq!(alone.to_vec::<f64>().unwrap(), team.to_vec::<f64>().unwrap());
        }
        assert!(
            Tensor::stack_single_threaded(&[]).is_err()
                && Tensor::stack_single_threaded(&[&rows[0], &numbers[0]]).is_err()
        );
    }

    #[test]
    fn dropout_keeps_the_mean_is_a_function_of_the_seed_and_is_its_own_way_back() {
        let x = Tensor::ones(&[1000, 999], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let draw = |rate: f64| x.mul(&kept(&[1000, 999], rate, 9).unwrap()).unwrap();
        for rate in [0.1, 0.5, 0.93] {
            let y = draw(rate);
            let gone = y.to_vec::<f64>().unwrap().iter().filter(|v| **v == 0.0).count() as f64 / 999_000.0;
            // Four deviations of a mean of so many.
            assert!((gone - rate).abs() < 4.0 * (rate * (1.0 - rate) / 999_000.0).sqrt() + 1e-5, "{gone}");
            assert!((y.max().unwrap().to_f64().unwrap() * (1.0 - rate) - 1.0).abs() < 1e-3);
            assert_eq!(draw(rate).to_vec::<f32>().unwrap(), y.to_vec::<f32>().unwrap());
            x.zero_grad();
            y.sum().unwrap().backward().unwrap();
            assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), y.to_vec::<f32>().unwrap());
        }
        // Columns and neighbours know nothing of each other.
        let y = draw(0.5).detach().unwrap().add_scalar(-1.0).unwrap();
        let beside = y.narrow(1, 0, 998).unwrap().mul(&y.narrow(1, 1, 998).unwrap()).unwrap().mean().unwrap();
        assert!(beside.to_f64().unwrap().abs() < 0.004);
        let other = x.dropout(0.5, true).unwrap().to_vec::<f32>().unwrap();
        assert!(other != x.dropout(0.5, true).unwrap().to_vec::<f32>().unwrap() && other.contains(&2.0));
        assert_eq!(x.dropout(0.5, false).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
        assert!(x.dropout(-0.1, true).is_err() && x.dropout(1.5, true).is_err());
    }

    #[test]
    fn a_leaky_rectifier_and_its_slope() {
        let x = Tensor::from_slice(&[-2f32, -0.5, 0.0, 3.0]).unwrap().set_requires_grad(true).unwrap();
        let y = x.leaky_relu(0.2).unwrap();
        let said = y.to_vec::<f32>().unwrap();
        assert!(said.iter().zip([-0.4f32, -0.1, 0.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{said:?}");
        y.pow(2.0).unwrap().sum().unwrap().backward().unwrap();
        let slopes = x.grad().unwrap().to_vec::<f32>().unwrap();
        assert!(slopes.iter().zip([-0.16f32, -0.04, 0.0, 6.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{slopes:?}");
    }

    #[test]
    fn a_wrong_shape_dtype_or_index_is_an_error_that_names_the_operation_and_the_operands() {
        let a = Tensor::zeros(&[2, 3], DType::F32, Device::Cpu).unwrap();
        let b = Tensor::zeros(&[4, 5], DType::F32, Device::Cpu).unwrap();
        let text = a.matmul(&b).unwrap_err().to_string();
        assert!(text.starts_with("matmul: found [2, 3] f32 on cpu and [4, 5] f32 on cpu: "), "{text}");
        assert!(!text.contains("Exception raised"), "{text}");
        assert!(
            a.reshape(&[7]).is_err() && a.narrow(0, 1, 9).is_err() && a.select(3, 0).is_err() && a.size(5).is_err()
        );
        assert!(a.embedding(&a).is_err() && a.backward().is_err() && Tensor::cat(&[], 0).is_err());
        assert!(a.to_f64().is_err() && Tensor::from_vec(&[1f32], &[2]).is_err() && a.topk(9).is_err());
        assert!(Tensor::zeros(&[-1], DType::F32, Device::Cpu).is_err());
        let mask = Tensor::from_slice(&[true; 7]).unwrap();
        assert!(a.masked_fill(&mask, 0.0).is_err());
        let half = a.to_dtype(DType::BF16).unwrap();
        assert!(half.masked_fill(&Tensor::from_slice(&[true; 3]).unwrap(), 1e300).is_err());
    }

    #[test]
    fn a_singular_value_decomposition_multiplies_back() {
        let a = Tensor::from_vec(&[3f32, 1.0, -2.0, 0.5, 4.0, 1.5], &[3, 2]).unwrap();
        let (u, s, vt) = a.svd().unwrap();
        let back = u.mul(&s).unwrap().matmul(&vt).unwrap();
        assert!(back.sub(&a).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-5);
    }

    #[test]
    fn gradients_flow_and_operators_read_well() {
        let x = Tensor::from_slice(&[1f32, 2.0, 3.0]).unwrap().set_requires_grad(true).unwrap();
        let y = (&(&x * &x).unwrap() * 2.0).unwrap().sum().unwrap();
        y.backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [4.0, 8.0, 12.0]);
        assert!((&x / 2.0).unwrap().to_vec::<f32>().unwrap() == [0.5, 1.0, 1.5]);
    }
}
