//! The masked autoencoder.

use super::{batch::present_rows, spec::InputSpec, transformer::pre_norm_transformer};
use mm_core::{
    DType, Error, Features, Init, InputSet, LossOutput, Modality, Module, Pooling, RepresentationLearner, Result,
    Scope, Tensor,
    distributed::{rand_rows, sum_over_ranks},
    nn::{AttentionConfig, ForwardArgs, Linear, Transformer},
};
use serde::{Deserialize, Serialize};

/// Settings of a [`MaskedAutoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskedAutoencoderConfig {
    /// Height and width of a patch.
    pub patch_size: [i64; 2],
    /// Embedding dimension of the encoder.
    pub embed_dim: i64,
    /// Layers of the encoder.
    pub num_layers: i64,
    /// Attention heads of encoder and decoder.
    pub num_heads: i64,
    /// Embedding dimension of the decoder.
    pub decoder_embed_dim: i64,
    /// Layers of the decoder.
    pub decoder_num_layers: i64,
    /// Fraction of the patches that are masked.
    pub mask_ratio: f64,
    /// Whether the loss compares patches standardized to mean 0 and variance 1.
    pub norm_pix_loss: bool,
}

impl Default for MaskedAutoencoderConfig {
    fn default() -> Self {
        Self {
            patch_size: [4, 4],
            embed_dim: 128,
            num_layers: 4,
            num_heads: 4,
            decoder_embed_dim: 64,
            decoder_num_layers: 2,
            mask_ratio: 0.75,
            norm_pix_loss: false,
        }
    }
}

/// A masked autoencoder of images or spectrograms: a transformer encodes the visible patches, a smaller one predicts
/// the masked ones; the loss is their mean squared error.
///
/// *Masked Autoencoders Are Scalable Vision Learners* ([He et al., 2022](https://arxiv.org/abs/2111.06377)); *Masked
/// Autoencoders that Listen* ([Huang et al., 2022](https://arxiv.org/abs/2207.06405)).
pub struct MaskedAutoencoder {
    modality: Modality,
    spec: InputSpec,
    patch_embedding: Linear,
    position_embedding: Tensor,
    encoder: Transformer,
    decoder_embedding: Linear,
    mask_token: Tensor,
    decoder_position_embedding: Tensor,
    decoder: Transformer,
    prediction: Linear,
    config: MaskedAutoencoderConfig,
}

fn num_visible(num_patches: i64, mask_ratio: f64) -> i64 {
    num_patches - (num_patches as f64 * mask_ratio).round() as i64
}

impl MaskedAutoencoder {
    /// Transformers `encoder` and `decoder` under `scope`.
    ///
    /// # Errors
    /// Patches do not divide the images, or the mask ratio leaves no masked or no visible patch.
    pub fn new(
        scope: &Scope<'_>,
        (modality, spec): (&Modality, &InputSpec),
        config: &MaskedAutoencoderConfig,
    ) -> Result<Self> {
        let c = config;
        let [height, width] = c.patch_size;
        let divides = |patch: i64, size: i64| patch > 0 && size % patch == 0;
        if spec.shape.len() != 3 || !divides(height, spec.shape[1]) || !divides(width, spec.shape[2]) {
            let expected = format!("a patch size that divides images of shape {:?}", spec.shape);
            return Err(Error::config("model.patch_size", format!("{:?}", c.patch_size), expected));
        }
        let num_patches = (spec.shape[1] / height) * (spec.shape[2] / width);
        let visible = num_visible(num_patches, c.mask_ratio);
        if !(0.0..1.0).contains(&c.mask_ratio) || visible == num_patches || visible < 1 {
            let expected = format!("a ratio in (0, 1) that masks some of the {num_patches} patches, not all");
            return Err(Error::config("model.mask_ratio", c.mask_ratio, expected));
        }
        let patch_dim = spec.shape[0] * height * width;
        let positions = |name: &str, dim: i64| scope.param(name, &[1, num_patches, dim], Init::Normal(0.02));
        let transformer = |name: &str, dim: i64, num_layers: i64| {
            pre_norm_transformer(&scope.pp(name), AttentionConfig::new(dim, c.num_heads), num_layers, 0.0)
        };
        Ok(Self {
            modality: modality.clone(),
            spec: spec.clone(),
            patch_embedding: Linear::new(&scope.pp("patch_embedding"), patch_dim, c.embed_dim, true)?,
            position_embedding: positions("position_embedding", c.embed_dim)?,
            encoder: transformer("encoder", c.embed_dim, c.num_layers)?,
            decoder_embedding: Linear::new(&scope.pp("decoder_embedding"), c.embed_dim, c.decoder_embed_dim, true)?,
            mask_token: scope.param("mask_token", &[1, 1, c.decoder_embed_dim], Init::Normal(0.02))?,
            decoder_position_embedding: positions("decoder_position_embedding", c.decoder_embed_dim)?,
            decoder: transformer("decoder", c.decoder_embed_dim, c.decoder_num_layers)?,
            prediction: Linear::new(&scope.pp("prediction"), c.decoder_embed_dim, patch_dim, true)?,
            config: c.clone(),
        })
    }

    /// `[rows, channels, height, width]` → `[rows, patches, patch_dim]`.
    fn patchify(&self, x: &Tensor) -> Result<Tensor> {
        let ([ph, pw], s) = (self.config.patch_size, &self.spec.shape);
        let (grid_height, grid_width) = (s[1] / ph, s[2] / pw);
        x.reshape(&[-1, s[0], grid_height, ph, grid_width, pw])?.permute(&[0, 2, 4, 3, 5, 1])?.reshape(&[
            -1,
            grid_height * grid_width,
            ph * pw * s[0],
        ])
    }

    /// `[rows, patches, patch_dim]` → `[rows, channels, height, width]`.
    fn unpatchify(&self, patches: &Tensor) -> Result<Tensor> {
        let ([ph, pw], s) = (self.config.patch_size, &self.spec.shape);
        patches
            .reshape(&[-1, s[1] / ph, s[2] / pw, ph, pw, s[0]])?
            .permute(&[0, 5, 1, 3, 2, 4])?
            .reshape(&[-1, s[0], s[1], s[2]])
    }

    /// Predictions of all patches `[rows, patches, patch_dim]`, and the mask `[rows, patches, 1]`, 1 where masked.
    fn predict(&self, patches: &Tensor, train: bool) -> Result<(Tensor, Tensor)> {
        let (rows, num_patches) = (patches.size(0)?, patches.size(1)?);
        let visible = num_visible(num_patches, self.config.mask_ratio);
        // A random order per row, whose first patches are visible.
        let order = rand_rows(&[rows, num_patches], patches.device())?.argsort(1, false)?;
        let inverse_order = order.argsort(1, false)?; // [rows, patches]
        let gather = |x: &Tensor, indices: &Tensor| -> Result<Tensor> {
            let dim = x.size(2)?;
            x.gather(1, &indices.unsqueeze(-1)?.expand(&[-1, -1, dim])?)
        };
        let args = || ForwardArgs { train, ..ForwardArgs::default() };
        // Masked patches are removed before the projection, so that they cost nothing.
        let visible_indices = order.narrow(1, 0, visible)?;
        let positions = self.position_embedding.expand(&[rows, -1, -1])?;
        let x = self
            .patch_embedding
            .forward(&gather(patches, &visible_indices)?, train)?
            .add(&gather(&positions, &visible_indices)?)?;
        let x = self.decoder_embedding.forward(&self.encoder.forward(&x, args())?, train)?; // [rows, visible, dim]
        let mask_tokens = self.mask_token.expand(&[rows, num_patches - visible, -1])?;
        let x = gather(&Tensor::cat(&[&x, &mask_tokens], 1)?, &inverse_order)?;
        let x = self.decoder.forward(&x.add(&self.decoder_position_embedding)?, args())?; // [rows, patches, dim]
        let mask = inverse_order.gt_scalar(visible as f64 - 0.5)?.to_dtype(DType::F32)?.unsqueeze(-1)?;
        Ok((self.prediction.forward(&x, train)?, mask))
    }

    /// Mean and standard deviation of each patch, with `norm_pix_loss`.
    fn patch_stats(&self, patches: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        if !self.config.norm_pix_loss {
            return Ok(None);
        }
        let std = patches.std_dim(&[-1], false, true)?.add_scalar(1e-3)?;
        Ok(Some((patches.mean_dim(&[-1], true)?, std)))
    }
}

impl RepresentationLearner for MaskedAutoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some(values) = present_rows(set, &self.modality)? else { return Ok(None) };
        let patches = self.patchify(&values)?;
        let (predicted, mask) = self.predict(&patches, train)?;
        let target = match self.patch_stats(&patches)? {
            Some((mean, std)) => patches.sub(&mean)?.div(&std)?,
            None => patches,
        };
        let difference = predicted.sub(&target)?;
        let error = difference.mul(&difference)?.mean_dim(&[-1], true)?; // [rows, patches, 1]
        let loss = sum_over_ranks(&error.mul(&mask)?.sum()?)?.div(&sum_over_ranks(&mask.sum()?)?)?;
        let metrics = vec![("reconstruction_error".to_owned(), loss.to_f64()?)];
        Ok(Some((loss, metrics)))
    }

    fn supports_process_groups(&self) -> bool {
        true
    }

    /// The mean of the encoder's features of all patches.
    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.features(set)?.pool(Pooling::Mean)
    }

    fn features(&self, set: &InputSet) -> Result<Features> {
        let patches = self.patchify(&set.get(&self.modality)?.0.values)?;
        let x = self.patch_embedding.forward(&patches, false)?.add(&self.position_embedding)?;
        Features::new(self.encoder.forward(&x, ForwardArgs::default())?, None)
    }

    fn dim(&self) -> i64 {
        self.config.embed_dim
    }

    /// Masks random patches and predicts them; visible patches are returned unchanged.
    fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        if *modality != self.modality {
            return Ok(None);
        }
        let patches = self.patchify(&set.get(modality)?.0.values)?;
        let (mut predicted, mask) = self.predict(&patches, false)?;
        if let Some((mean, std)) = self.patch_stats(&patches)? {
            predicted = predicted.mul(&std)?.add(&mean)?;
        }
        let is_visible = mask.gt_scalar(0.5)?.logical_not()?;
        self.unpatchify(&patches.where_cond(&is_visible, &predicted)?).map(Some)
    }
}
