//! Operations of neural network layers.

use super::{Tensor, torch_error, wrap};
use crate::{DType, Device, Result, seed::Rng};
use tch::TchError;

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
    #[allow(clippy::too_many_arguments)]
    pub fn batch_norm(
        &self,
        weight: &Tensor,
        bias: &Tensor,
        mean: &Tensor,
        variance: &Tensor,
        train: bool,
        momentum: f64,
        eps: f64,
    ) -> Result<Self> {
        let (w, b, m, v) = (Some(&weight.0), Some(&bias.0), Some(&mean.0), Some(&variance.0));
        wrap("batch_norm", &[self, weight], self.0.f_batch_norm(w, b, m, v, train, momentum, eps, true))
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
        wrap(
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
        wrap("conv2d", &[self, weight], self.0.f_conv2d(&weight.0, bias.map(|b| &b.0), stride, padding, [1, 1], groups))
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

    /// Three-dimensional convolution of `[batch, channels, depth, height, width]`, without padding.
    pub fn conv3d(&self, weight: &Tensor, bias: Option<&Tensor>, stride: [i64; 3]) -> Result<Self> {
        wrap("conv3d", &[self, weight], self.0.f_conv3d(&weight.0, bias.map(|b| &b.0), stride, [0; 3], [1; 3], 1))
    }

    /// Attention by libtorch's fused kernels. Self is the query `[batch, heads, queries, head_dim]`; `mask` is added to
    /// the scores and broadcasts to `[batch, heads, queries, keys]`.
    pub fn scaled_dot_product_attention(
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
