//! Patch embedding.

use crate::Result;
use mm_core::{ConvArgs, Init, Scope, Tensor};

/// Splits images, spectrograms or videos into patches and projects each: a convolution whose stride is its kernel size
/// unless the patches overlap.
pub struct PatchEmbed {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: Vec<i64>,
    padding: [i64; 2],
}

impl PatchEmbed {
    /// A convolution under `scope` with `kernel` (height, width) or (frames, height, width), and stride equal to it.
    pub fn new(scope: &Scope<'_>, channels: i64, embed_dim: i64, kernel: &[i64], bias: bool) -> Result<Self> {
        let shape: Vec<i64> = [embed_dim, channels].iter().chain(kernel).copied().collect();
        let weight = scope.param("weight", &shape, Init::Normal(0.02))?;
        let bias = bias.then(|| scope.param("bias", &[embed_dim], Init::Zeros)).transpose()?;
        Ok(Self { weight, bias, stride: kernel.to_vec(), padding: [0, 0] })
    }

    /// Sets stride and zero padding (height, width).
    pub fn with_stride(mut self, stride: [i64; 2], padding: [i64; 2]) -> Self {
        (self.stride, self.padding) = (stride.to_vec(), padding);
        self
    }

    /// Type of the weights.
    pub(crate) fn dtype(&self) -> mm_core::Result<mm_core::DType> {
        self.weight.dtype()
    }

    /// `[batch, channels, height, width]` → `[batch, embed_dim, rows, columns]`.
    pub fn conv(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let stride = [self.stride[0], self.stride[1]];
        let args = ConvArgs { stride, padding: self.padding, ..ConvArgs::default() };
        x.conv2d(&self.weight, self.bias.as_ref(), args)
    }

    /// Patches that are already cut out, `[…, channels · height · width]` → `[…, embed_dim]`.
    pub fn project_patches(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        x.linear(&self.weight.reshape(&[self.weight.size(0)?, -1])?, self.bias.as_ref())
    }

    /// Images `[batch, channels, height, width]`, spectrograms `[batch, frames, bands]` or videos
    /// `[batch, frames, channels, height, width]` → `[batch, patches, embed_dim]`, and the grid `[rows, columns]`.
    pub(super) fn forward(&self, x: &Tensor) -> mm_core::Result<(Tensor, [i64; 2])> {
        let y = match (x.rank(), self.stride.as_slice()) {
            // A spectrogram is an image with bands as rows and frames as columns.
            (3, _) => self.conv(&x.unsqueeze(1)?.transpose(2, 3)?)?,
            (5, [time, vertical, horizontal]) => {
                let x = x.permute(&[0, 2, 1, 3, 4])?;
                let args = ConvArgs { stride: [*time, *vertical, *horizontal], ..ConvArgs::default() };
                x.conv3d(&self.weight, self.bias.as_ref(), args)?.flatten(2, 3)?
            }
            _ => self.conv(x)?,
        };
        let grid = [y.size(2)?, y.size(3)?];
        Ok((y.flatten(2, 3)?.transpose(1, 2)?, grid))
    }
}
