//! Sizes of the audio encoder.

use crate::{Result, checkpoint_config, family::ModelBuilder, image::vit::SizePair};
use mm_core::nn::Activation;

checkpoint_config! {
    /// transformers' `ClapAudioConfig`.
    ClapAudioConfig {
        window_size: i64 = 8,
        num_mel_bins: i64 = 64,
        spec_size: i64 = 256,
        hidden_act: Activation = Activation::Gelu,
        patch_size: SizePair = SizePair::Square(4),
        patch_stride: SizePair = SizePair::Rectangle(4, 4),
        hidden_size: i64 = 768,
        depths: Vec<i64> = vec![2, 2, 6, 2],
        num_attention_heads: Vec<i64> = vec![4, 8, 16, 32],
        enable_fusion: bool = false,
        patch_embed_input_channels: i64 = 1,
        patch_embeds_hidden_size: i64 = 96,
        enable_patch_layer_norm: bool = true,
        qkv_bias: bool = true,
        mlp_ratio: f64 = 4.0,
        aff_block_r: i64 = 4,
        layer_norm_eps: f64 = 1e-5,
    }
}

impl ClapAudioConfig {
    pub(super) fn validate(&self, b: &ModelBuilder<'_>) -> Result<()> {
        let stages = self.depths.len();
        if self.strips() < 1 || stages == 0 || self.num_attention_heads.len() != stages || self.window_size < 1 {
            return Err(b.config_error(
                "audio_config: expected spec_size ≥ num_mel_bins, as many num_attention_heads as depths, and window_size ≥ 1",
            ));
        }
        Ok(())
    }

    /// Number of strips that a spectrogram is cut into to make a square.
    pub(super) fn strips(&self) -> i64 {
        self.spec_size / self.num_mel_bins.max(1)
    }

    /// Zero padding of the patch embedding.
    pub(super) fn patch_padding(&self) -> [i64; 2] {
        let (patch, stride) = (self.patch_size.get(), self.patch_stride.get());
        [(patch[0] - stride[0]) / 2, (patch[1] - stride[1]) / 2]
    }
}
