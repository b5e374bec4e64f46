//! Qwen2-VL's vision encoder.

use mm_core::{
    ConvArgs, DType, Init, Module, Result, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, ForwardArgs, Linear, MlpConfig, Norm, NormConfig, Transformer,
        TransformerConfig,
    },
};
use mm_repr::{checkpoint_config, family::ModelBuilder};
use serde_json::Value;

checkpoint_config! {
    /// transformers' `Qwen2VLVisionConfig`.
    Qwen2VlVisionConfig {
        depth: i64 = 32,
        embed_dim: i64 = 1280,
        hidden_size: i64 = 3584,
        hidden_act: Activation = Activation::QuickGelu,
        mlp_ratio: f64 = 4.0,
        num_heads: i64 = 16,
        in_channels: i64 = 3,
        patch_size: i64 = 14,
        spatial_merge_size: i64 = 2,
        temporal_patch_size: i64 = 2,
        rope_parameters: Value = Value::Null,
    }
}

/// A vision transformer on patches of frames with two-dimensional rotary positions, which merges adjacent patches.
pub(super) struct VisionEncoder {
    patch_embedding: Tensor,
    blocks: Transformer,
    norm: Norm,
    mlp: [Linear; 2],
    rope_theta: f64,
    pub(super) config: Qwen2VlVisionConfig,
}

impl VisionEncoder {
    pub(super) fn new(b: &ModelBuilder<'_>, scope: &Scope<'_>, c: Qwen2VlVisionConfig) -> mm_repr::Result<Self> {
        let norm = NormConfig { eps: 1e-6, ..NormConfig::default() };
        let hidden = (c.embed_dim as f64 * c.mlp_ratio) as i64;
        let block = BlockConfig {
            norm,
            ..BlockConfig::pre_norm(
                AttentionConfig::new(c.embed_dim, c.num_heads),
                MlpConfig::new(hidden, c.hidden_act),
            )
        };
        if c.spatial_merge_size < 1
            || c.patch_size < 1
            || c.temporal_patch_size < 1
            || c.embed_dim % (4 * c.num_heads.max(1)) != 0
        {
            let reason = "vision_config: expected sizes above 0 and a head dimension that is a multiple of four";
            return Err(b.config_error(reason));
        }
        let shape = [c.embed_dim, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size];
        let merged_dim = c.embed_dim * c.spatial_merge_size * c.spatial_merge_size;
        let merger = scope.pp("merger");
        Ok(Self {
            patch_embedding: scope.pp("patch_embedding").param("weight", &shape, Init::Normal(0.02))?,
            blocks: b.transformer(
                scope,
                TransformerConfig { final_norm: false, ..TransformerConfig::new(c.depth, block) },
            )?,
            norm: Norm::new(&merger.pp("ln_q"), c.embed_dim, norm)?,
            mlp: [
                Linear::new(&merger.pp("mlp").pp(0), merged_dim, merged_dim, true)?,
                Linear::new(&merger.pp("mlp").pp(2), merged_dim, c.hidden_size, true)?,
            ],
            rope_theta: c.rope_parameters["rope_theta"].as_f64().unwrap_or(10_000.0),
            config: c,
        })
    }

    /// Frames `[time, 3, height, width]` → features `[1, time · rows · columns / merge², dim]`, and the number of
    /// patches (time, rows, columns).
    pub(super) fn forward(&self, frames: &Tensor) -> Result<(Tensor, [i64; 3])> {
        let c = &self.config;
        let (x, grid) = self.embed_patches(frames)?;
        let [time, rows, columns] = grid;
        let (cos, sin) = self.rotary_cos_sin(rows, columns, &x)?;
        let x = self.blocks.forward(&x, ForwardArgs { rotary: Some((&cos, &sin)), ..ForwardArgs::default() })?;
        let m = c.spatial_merge_size;
        let x = self.norm.forward(&x, false)?.reshape(&[time, rows / m, m, columns / m, m, c.embed_dim])?;
        let merged = [1, time * (rows / m) * (columns / m), m * m * c.embed_dim];
        let x = x.permute(&[0, 1, 3, 2, 4, 5])?.reshape(&merged)?;
        let x = self.mlp[1].forward(&self.mlp[0].forward(&x, false)?.gelu()?, false)?;
        Ok((x, grid))
    }

    /// Patches `[time, rows · columns, dim]` of frames, of which the last is repeated to fill a temporal patch.
    fn embed_patches(&self, frames: &Tensor) -> Result<(Tensor, [i64; 3])> {
        let c = &self.config;
        let step = c.temporal_patch_size;
        let missing = (step - frames.size(0)? % step) % step;
        let last = frames.narrow(0, frames.size(0)? - 1, 1)?.expand(&[missing, -1, -1, -1])?;
        let video = Tensor::cat(&[frames, &last], 0)?.permute(&[1, 0, 2, 3])?.unsqueeze(0)?; // [1, 3, time, height, width]
        // [1, dim, time, rows, columns]
        let args = ConvArgs { stride: [step, c.patch_size, c.patch_size], ..ConvArgs::default() };
        let x = video.conv3d(&self.patch_embedding, None, args)?;
        let (time, rows, columns) = (x.size(2)?, x.size(3)?, x.size(4)?);
        let x = x.squeeze(0)?.permute(&[1, 2, 3, 0])?.reshape(&[time, rows * columns, c.embed_dim])?;
        Ok((x, [time, rows, columns]))
    }

    /// Rotary cosines and sines `[rows · columns, head dim / 2]`: half of the pairs by the row, half by the column.
    fn rotary_cos_sin(&self, rows: i64, columns: i64, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let quarter = self.config.embed_dim / self.config.num_heads / 4;
        let inv_freq: Vec<f32> =
            (0..quarter).map(|i| self.rope_theta.powf(-(i as f64) / quarter as f64) as f32).collect();
        let inv_freq = Tensor::from_slice(&inv_freq)?.to_device(x.device())?;
        let angles = |n: i64| Tensor::arange(0, n, x.device())?.to_dtype(DType::F32)?.unsqueeze(1)?.mul(&inv_freq);
        let by_row = angles(rows)?.unsqueeze(1)?.expand(&[rows, columns, quarter])?;
        let by_column = angles(columns)?.unsqueeze(0)?.expand(&[rows, columns, quarter])?;
        let angles = Tensor::cat(&[&by_row, &by_column], 2)?.reshape(&[rows * columns, 2 * quarter])?;
        Ok((angles.cos()?.to_dtype(x.dtype()?)?, angles.sin()?.to_dtype(x.dtype()?)?))
    }
}
