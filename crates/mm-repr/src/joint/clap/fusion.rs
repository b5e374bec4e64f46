//! Feature fusion of long audio: the map of the full recording and the maps of three crops.

use super::config::ClapAudioConfig;
use crate::{Result, image::vit::PatchEmbed};
use mm_core::{
    Module, Scope, Tensor,
    nn::{BatchNorm, Conv2d, ConvConfig},
};

/// Attentional feature fusion.
///
/// *Attentional Feature Fusion* (Dai et al., 2020), <https://arxiv.org/abs/2009.14082>.
pub(super) struct AttentionalFusion {
    crop_embed: PatchEmbed,
    local: [Conv2d; 2],
    global: [Conv2d; 2],
}

/// A pointwise convolution at `index` and the batch normalization after it, folded into one.
fn conv_norm(scope: &Scope<'_>, index: usize, input: i64, output: i64) -> Result<Conv2d> {
    let config = ConvConfig {
        in_channels: input,
        out_channels: output,
        kernel_size: 1,
        stride: 1,
        padding: 0,
        groups: 1,
        bias: true,
    };
    let norm = BatchNorm::new(&scope.pp(index + 1), output, 1e-5, 0.1)?;
    Ok(Conv2d::with_folded_batch_norm(&scope.pp(index), config, &norm)?)
}

fn apply([first, second]: &[Conv2d; 2], x: &Tensor) -> mm_core::Result<Tensor> {
    second.forward(&first.forward(x, false)?.relu()?, false)
}

impl AttentionalFusion {
    pub(super) fn new(scope: &Scope<'_>, c: &ClapAudioConfig) -> Result<Self> {
        let ([height, width], [stride_height, stride_width]) = (c.patch_size.get(), c.patch_stride.get());
        let dim = c.patch_embeds_hidden_size;
        let (conv, channels) = (scope.pp("mel_conv2d"), c.patch_embed_input_channels);
        let crop_embed = PatchEmbed::new(&conv, channels, dim, &[height, 3 * width], true)?
            .with_stride([stride_height, 3 * stride_width], c.patch_padding());
        let hidden_dim = dim / c.aff_block_r.max(1);
        let branch = |name: &str, first: usize| -> Result<[Conv2d; 2]> {
            let branch = scope.pp("fusion_model").pp(name);
            Ok([conv_norm(&branch, first, dim, hidden_dim)?, conv_norm(&branch, first + 3, hidden_dim, dim)?])
        };
        Ok(Self { crop_embed, local: branch("local_att", 0)?, global: branch("global_att", 1)? })
    }

    /// `whole` `[batch, dim, rows, columns]` and `crops` `[batch, 3, height, width]` → the fused map.
    pub(super) fn forward(&self, whole: &Tensor, crops: &Tensor) -> mm_core::Result<Tensor> {
        let shape = crops.shape();
        let x = self.crop_embed.conv(&crops.reshape(&[-1, 1, shape[2], shape[3]])?)?; // [batch · 3, dim, rows, columns / 3]
        let map = x.shape();
        let x = x.reshape(&[shape[0], shape[1], map[1], map[2], map[3]])?.permute(&[0, 2, 3, 1, 4])?.flatten(3, 4)?;
        let x = x.pad(&[0, whole.size(3)? - x.size(3)?], 0.0)?;
        let sum = whole.add(&x)?;
        let global = apply(&self.global, &sum.mean_dim(&[2, 3], true)?)?;
        let gate = apply(&self.local, &sum)?.add(&global)?.sigmoid()?;
        let complement = gate.neg()?.add_scalar(1.0)?;
        whole.mul(&gate)?.add(&x.mul(&complement)?)?.mul_scalar(2.0)
    }
}
