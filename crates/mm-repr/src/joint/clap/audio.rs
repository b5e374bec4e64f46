//! The audio tower: a spectrogram folded into a square image, HTS-AT, mean, projection.

use super::{config::ClapAudioConfig, fusion::AttentionalFusion, htsat::Stage, projection::Projection};
use crate::{
    Result,
    family::{ModelBuilder, PretrainedEncoder},
    image::vit::PatchEmbed,
};
use mm_core::{
    Encoder, Features, Input, Modality, Module, Pooling, Tensor,
    nn::{BatchNorm, Norm, NormConfig},
};

/// Spectrograms `[batch, crops, frames, bands]` → features `[batch, positions, dim]`.
pub(super) struct ClapAudioEncoder {
    /// Of each band, with the running statistics.
    batch_norm: BatchNorm,
    patch_embed: PatchEmbed,
    fusion: Option<AttentionalFusion>,
    patch_norm: Option<Norm>,
    stages: Vec<Stage>,
    norm: Norm,
    projection: Projection,
    /// Side of the square image.
    image_size: i64,
    /// Number of strips of time that lie above each other in it.
    strips: i64,
    dim: i64,
}

impl ClapAudioEncoder {
    pub(super) fn new(b: &ModelBuilder<'_>, c: &ClapAudioConfig, projection: Projection) -> Result<Self> {
        if b.layer.is_some() {
            return Err(b.config_error("CLAP's audio tower is not a stack of equal blocks, so --layer cannot be used"));
        }
        c.validate(b)?;
        let scope = b.scope.pp("audio_model.audio_encoder");
        let (embed, embed_dim) = (scope.pp("patch_embed"), c.patch_embeds_hidden_size);
        let (channels, kernel) = (c.patch_embed_input_channels, c.patch_size.get());
        let patch_embed = PatchEmbed::new(&embed.pp("proj"), channels, embed_dim, &kernel, true)?;
        let stages = c.depths.len();
        let dim = embed_dim << (stages - 1);
        let norm = NormConfig::default();
        let patch_norm =
            c.enable_patch_layer_norm.then(|| Norm::new(&embed.pp("norm"), embed_dim, norm)).transpose()?;
        Ok(Self {
            batch_norm: BatchNorm::new(&scope.pp("batch_norm"), c.num_mel_bins, 1e-5, 0.1)?,
            patch_embed: patch_embed.with_stride(c.patch_stride.get(), c.patch_padding()),
            // Its batch normalizations are folded into the convolutions, so it is never trained.
            fusion: c.enable_fusion.then(|| AttentionalFusion::new(&embed.frozen(), c)).transpose()?,
            patch_norm,
            stages: (0..stages).map(|index| Stage::new(&scope, c, index)).collect::<Result<_>>()?,
            norm: Norm::new(&scope.pp("norm"), dim, norm)?,
            projection,
            image_size: c.spec_size,
            strips: c.strips(),
            dim,
        })
    }

    /// `[batch, crops, frames, bands]` → `[batch, crops, size, size]`: strips of time above each other, bands as rows
    /// in each.
    fn fold(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let (frames, bands) = (self.image_size * self.strips, self.image_size / self.strips);
        let shape = x.shape();
        if shape[2] > frames || shape[3] > bands {
            let expected = format!(
                "at most {frames} frames of {bands} bands: config.json and preprocessor_config.json do not match"
            );
            return Err(mm_core::Error::shape("spectrogram", &shape, expected));
        }
        let x = if shape[2] < frames {
            x.interpolate([frames, shape[3]], mm_core::Interpolation::Bicubic { align_corners: true })?
        } else {
            x.clone()
        };
        let x = if shape[3] < bands {
            x.interpolate([frames, bands], mm_core::Interpolation::Bicubic { align_corners: true })?
        } else {
            x
        };
        let x = x.reshape(&[shape[0], shape[1] * self.strips, frames / self.strips, bands])?.transpose(2, 3)?;
        x.reshape(&[shape[0], shape[1], bands * self.strips, frames / self.strips])
    }
}

impl Encoder for ClapAudioEncoder {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let (scale, shift) = self.batch_norm.scale_and_shift()?;
        let x = self.fold(&input.values.mul(&scale)?.add(&shift)?)?;
        let mut map = self.patch_embed.conv(&x.narrow(1, 0, 1)?)?;
        if let Some(fusion) = &self.fusion {
            // transformers fuses at least one row of a batch, and so every row that is encoded alone.
            map = fusion.forward(&map, &x.narrow(1, 1, x.size(1)? - 1)?)?;
        }
        let mut x = map.permute(&[0, 2, 3, 1])?; // [batch, rows, columns, embed_dim]
        if let Some(norm) = &self.patch_norm {
            x = norm.forward(&x, train)?;
        }
        for stage in &self.stages {
            x = stage.forward(x)?;
        }
        Features::new(self.norm.forward(&x, train)?.flatten(1, 2)?, None)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        self.projection.apply(&self.encode(input, train)?.pool(Pooling::Mean)?)
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.dim()
    }

    fn modality(&self) -> Modality {
        Modality::AUDIO
    }
}

impl PretrainedEncoder for ClapAudioEncoder {}
