//! Operations of neural network layers.

use super::{Tensor, torch_error, wrap};
use crate::{DType, Device, Result, seed::Rng};
use tch::TchError;

/// Arguments of a convolution over `N` dimensions; by default stride 1, no padding, no dilation, one group.
///
/// ```
/// use mm_core::{ConvArgs, DType, Device, Tensor};
/// # fn main() -> mm_core::Result<()> {
/// let images = Tensor::ones(&[1, 3, 8, 8], DType::F32, Device::Cpu)?;
/// let kernel = Tensor::ones(&[4, 3, 3, 3], DType::F32, Device::Cpu)?;
/// let args = ConvArgs { stride: [2, 2], padding: [1, 1], ..ConvArgs::default() };
/// assert_eq!(images.conv2d(&kernel, None, args)?.shape(), [1, 4, 4, 4]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvArgs<const N: usize> {
    /// Distance of the positions that the kernel is applied to.
    pub stride: [i64; N],
    /// Zeros added on both sides.
    pub padding: [i64; N],
    /// Distance of the input positions that the kernel covers.
    pub dilation: [i64; N],
    /// The channels are split into this many groups, each with a kernel of its own.
    pub groups: i64,
}

impl<const N: usize> Default for ConvArgs<N> {
    fn default() -> Self {
        Self { stride: [1; N], padding: [0; N], dilation: [1; N], groups: 1 }
    }
}

/// Statistics and parameters of [`Tensor::batch_norm`].
#[derive(Debug, Clone, Copy)]
pub struct BatchNormArgs<'a> {
    /// Scale of each channel, `[channels]`.
    pub weight: &'a Tensor,
    /// Shift of each channel, `[channels]`.
    pub bias: &'a Tensor,
    /// Running mean of each channel, updated in place during training.
    pub mean: &'a Tensor,
    /// Running variance of each channel, likewise.
    pub variance: &'a Tensor,
    /// Whether the statistics of the batch are used, and the running ones updated.
    pub train: bool,
    /// Weight of the batch in the running statistics.
    pub momentum: f64,
    /// Added to the variance.
    pub eps: f64,
}

/// Options of [`Tensor::scaled_dot_product_attention`]; by default every query sees every key.
#[derive(Debug, Clone, Copy, Default)]
pub struct DotProductArgs<'a> {
    /// Added to the scores; broadcasts to `[batch, heads, queries, keys]`.
    pub mask: Option<&'a Tensor>,
    /// Probability that a weight is dropped.
    pub dropout: f64,
    /// Whether a query sees only the keys up to its own position.
    pub causal: bool,
    /// Factor of the scores; one over the root of the head's dimension when absent.
    pub scale: Option<f64>,
}

/// Mode of [`Tensor::interpolate`].
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

impl Tensor {
    /// `self · weightᵀ + bias`.
    #[inline]
    pub fn linear(&self, weight: &Tensor, bias: Option<&Tensor>) -> Result<Self> {
        wrap("linear", &[self, weight], self.0.f_linear(&weight.0, bias.map(|b| &b.0)))
    }

    /// Rows of this table `[entries, dim]` by index: `[…]` int64 → `[…, dim]`.
    pub fn embedding(&self, indices: &Tensor) -> Result<Self> {
        wrap("embedding", &[self, indices], tch::Tensor::f_embedding(&self.0, &indices.0, -1, false, false))
    }

    /// Normalizes the last dimension to mean zero and variance one, then scales and shifts it.
    pub fn layer_norm(&self, weight: Option<&Tensor>, bias: Option<&Tensor>, eps: f64) -> Result<Self> {
        let dim = self.shape().last().copied().unwrap_or(1);
        let result = self.0.f_layer_norm(dim, weight.map(|t| &t.0), bias.map(|t| &t.0), eps, true);
        wrap("layer_norm", &with_second(self, weight), result)
    }

    /// Divides the last dimension by its root mean square, then scales it.
    pub fn rms_norm(&self, weight: Option<&Tensor>, eps: f64) -> Result<Self> {
        let dim = self.shape().last().copied().unwrap_or(1);
        wrap("rms_norm", &with_second(self, weight), self.0.f_rms_norm(dim, weight.map(|t| &t.0), eps))
    }

    /// Normalizes groups of channels of `[batch, channels, …]`.
    pub fn group_norm(&self, groups: i64, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Self> {
        wrap("group_norm", &[self, weight], self.0.f_group_norm(groups, Some(&weight.0), Some(&bias.0), eps, true))
    }

    /// Normalizes channels by the statistics of the batch during training, and by the running ones otherwise.
    pub fn batch_norm(&self, args: BatchNormArgs<'_>) -> Result<Self> {
        let [w, b, m, v] = [args.weight, args.bias, args.mean, args.variance].map(|t| Some(&t.0));
        let result = self.0.f_batch_norm(w, b, m, v, args.train, args.momentum, args.eps, true);
        wrap("batch_norm", &[self, args.weight], result)
    }

    /// One-dimensional convolution of `[batch, channels, length]`.
    pub fn conv1d(&self, weight: &Tensor, bias: Option<&Tensor>, args: ConvArgs<1>) -> Result<Self> {
        let ConvArgs { stride, padding, dilation, groups } = args;
        let result = self.0.f_conv1d(&weight.0, bias.map(|b| &b.0), stride, padding, dilation, groups);
        wrap("conv1d", &[self, weight], result)
    }

    /// Two-dimensional convolution of `[batch, channels, height, width]`.
    pub fn conv2d(&self, weight: &Tensor, bias: Option<&Tensor>, args: ConvArgs<2>) -> Result<Self> {
        let ConvArgs { stride, padding, dilation, groups } = args;
        let result = self.0.f_conv2d(&weight.0, bias.map(|b| &b.0), stride, padding, dilation, groups);
        wrap("conv2d", &[self, weight], result)
    }

    /// `relu(conv2d(x) + residual)` in one pass by cuDNN, without a derivative; none where cuDNN does not support it.
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
        .map(Self::from_tch)
    }

    /// Three-dimensional convolution of `[batch, channels, depth, height, width]`.
    pub fn conv3d(&self, weight: &Tensor, bias: Option<&Tensor>, args: ConvArgs<3>) -> Result<Self> {
        let ConvArgs { stride, padding, dilation, groups } = args;
        let result = self.0.f_conv3d(&weight.0, bias.map(|b| &b.0), stride, padding, dilation, groups);
        wrap("conv3d", &[self, weight], result)
    }

    /// Attention by libtorch's fused kernels. Self is the query `[batch, heads, queries, head_dim]`; keys and values
    /// may have fewer heads, each of which serves several of the query's.
    pub fn scaled_dot_product_attention(&self, key: &Tensor, value: &Tensor, args: DotProductArgs<'_>) -> Result<Self> {
        let grouped = self.shape().get(1) != key.shape().get(1);
        let DotProductArgs { mask, dropout, causal, scale } = args;
        let mask = mask.map(|m| &m.0);
        let result = tch::Tensor::f_scaled_dot_product_attention(
            &self.0, &key.0, &value.0, mask, dropout, causal, scale, grouped,
        );
        wrap("scaled_dot_product_attention", &[self, key, value], result)
    }

    /// Zeroes each value with probability `rate` and scales the others, during training; random choices come from
    /// libtorch's seeded generator.
    pub fn dropout(&self, rate: f64, train: bool) -> Result<Self> {
        if !train || rate == 0.0 {
            return Ok(self.clone());
        }
        if (0.0..1.0).contains(&rate) && self.device() == Device::Cpu && self.dtype()? == DType::F32 {
            return self.mul(&dropout_mask(&self.shape(), rate, random_seed()?)?);
        }
        wrap("dropout", &[self], self.0.f_dropout(rate, true))
    }

    /// `[batch, channels, height, width]` in channels-last memory format, which convolutions prefer and keep.
    pub fn channels_last(&self) -> Result<Self> {
        self.permute(&[0, 2, 3, 1])?.contiguous()?.permute(&[0, 3, 1, 2])
    }

    /// Resizes images `[batch, channels, height, width]` to `size` (height, width), as
    /// `torch.nn.functional.interpolate`.
    pub fn interpolate(&self, size: [i64; 2], mode: Interpolation) -> Result<Self> {
        let result = match mode {
            Interpolation::Nearest => self.0.f_upsample_nearest2d(size, None, None),
            Interpolation::Bilinear { align_corners } => self.0.f_upsample_bilinear2d(size, align_corners, None, None),
            Interpolation::Bicubic { align_corners } => self.0.f_upsample_bicubic2d(size, align_corners, None, None),
            Interpolation::BicubicAntialias => self.0.f_internal_upsample_bicubic2d_aa(size, false, None, None),
        };
        wrap("interpolate", &[self], result)
    }

    /// x where positive, `slope · x` elsewhere.
    pub fn leaky_relu(&self, slope: f64) -> Result<Self> {
        // tch wraps the default slope only; the backward operator is the same map of its first argument.
        let result = self.0.f_detach().and_then(|signs| signs.f_leaky_relu_backward(&self.0, slope, false));
        wrap("leaky_relu", &[self], result)
    }

    /// One LSTM layer over `[batch, length, input]` from zero states; `weights` are PyTorch's four (input, hidden, and
    /// their biases).
    pub fn lstm(&self, weights: [&Tensor; 4], hidden: i64) -> Result<Self> {
        let run = || {
            let rows = self.0.size().first().copied().unwrap_or(0);
            let start = tch::Tensor::f_zeros([1, rows, hidden], (self.0.f_kind()?, self.0.device()))?;
            let weights = weights.map(|w| &w.0);
            // cuDNN saves what the backward pass needs only in training mode.
            let train = self.0.requires_grad() || weights[0].requires_grad();
            self.0.f_lstm(&[&start, &start], &weights, true, 1, 0.0, train, false, true)
        };
        wrap("lstm", &[self, weights[0]], run().map(|(all, ..)| all))
    }

    /// Moves the four weights of an LSTM layer into one block of memory, as cuDNN expects; does nothing on the CPU.
    pub(crate) fn flatten_lstm_weights(weights: [&Tensor; 4], input: i64, hidden: i64) -> Result<()> {
        if weights[0].device() == Device::Cpu {
            return Ok(());
        }
        let all = weights.map(|w| &w.0);
        let flatten = || {
            // Mode 2 is LSTM; the weights become views of the returned tensor.
            tch::Tensor::f_internal_cudnn_rnn_flatten_weight(&all, 4, input, 2, hidden, 0, 1, true, false)
        };
        wrap("flatten_lstm_weights", &weights, tch::no_grad(flatten)).map(drop)
    }

    /// One LSTM step: input `[batch, input]`, states `[batch, hidden]` → the new hidden and cell states.
    pub fn lstm_cell(&self, hidden: &Tensor, cell: &Tensor, weights: [&Tensor; 4]) -> Result<(Self, Self)> {
        let [input, recurrent, input_bias, recurrent_bias] = weights.map(|w| &w.0);
        match self.0.f_lstm_cell(&[&hidden.0, &cell.0], input, recurrent, Some(input_bias), Some(recurrent_bias)) {
            Ok((hidden, cell)) => Ok((Self::from_tch(hidden), Self::from_tch(cell))),
            Err(error) => Err(torch_error("lstm_cell", &[self, hidden, cell], &error)),
        }
    }
}

/// A seed from libtorch's generator on the CPU.
fn random_seed() -> Result<u64> {
    let zero = tch::Tensor::f_zeros([1], (tch::Kind::Int64, tch::Device::Cpu));
    let bits = zero.and_then(|mut t| t.f_random_()).and_then(|t| t.f_int64_value(&[0]));
    bits.map(|b| b as u64).map_err(|e| torch_error("random_seed", &[], &e))
}

/// Zero with probability `rate` (to 1/65536), else the factor that keeps the mean. libtorch draws one value at a time
/// from a slow generator, which would cost a small network a sixth of its step; this draws four at a time from a fast
/// one.
pub(super) fn dropout_mask(shape: &[i64], rate: f64, seed: u64) -> Result<Tensor> {
    let fail = |e: TchError| torch_error("dropout", &[], &e);
    let mut rng = Rng::new(&[seed]);
    let mask = tch::Tensor::f_empty(shape, (tch::Kind::Float, tch::Device::Cpu)).map_err(fail)?;
    let threshold = (rate * 65536.0).round() as u64;
    let scale = (65536.0 / (65536 - threshold.min(65535)) as f32).to_bits();
    // SAFETY: memory of a new float32 tensor of this many values, which nothing else refers to.
    let values = unsafe { std::slice::from_raw_parts_mut(mask.data_ptr().cast::<f32>(), mask.numel()) };
    for four in values.chunks_mut(4) {
        let bits = rng.next_u64();
        for (value, shift) in four.iter_mut().zip([0, 16, 32, 48]) {
            *value = f32::from_bits(scale * u32::from((bits >> shift) & 0xFFFF >= threshold));
        }
    }
    Ok(Tensor::from_tch(mask))
}

fn with_second<'a>(first: &'a Tensor, second: Option<&'a Tensor>) -> Vec<&'a Tensor> {
    std::iter::once(first).chain(second).collect()
}
