//! The masked autoencoder (MAE, He 2022) for pictures and for spectrograms (Huang 2022): most patches are hidden, a transformer sees the
//! rest, a smaller one makes the hidden ones again.

use super::{InputSpec, rows_with};
use mm_core::{
    DType, Error, Features, Init, InputSet, LossOutput, Modality, Module, RepresentationLearner, Result, Scope, Tensor,
    nn::{Activation, AttentionConfig, BlockConfig, ForwardArgs, Linear, MlpConfig, Transformer, TransformerConfig},
};
use serde::{Deserialize, Serialize};

/// Settings of a [`MaskedAutoencoder`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MaskedAutoencoderConfig {
    /// Height and width of a patch.
    pub patch_size: [i64; 2],
    /// Width of the encoder, and of the code.
    pub embed_dim: i64,
    /// Its blocks.
    pub num_layers: i64,
    /// Its heads.
    pub num_heads: i64,
    /// Width of the decoder.
    pub decoder_embed_dim: i64,
    /// Its blocks.
    pub decoder_num_layers: i64,
    /// Share of the patches that are hidden.
    pub mask_ratio: f64,
    /// Whether each patch is brought to mean zero and variance one before it is compared.
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

/// A pre-norm stack of plain blocks.
pub(super) fn stack(scope: &Scope<'_>, attention: AttentionConfig, layers: i64, dropout: f64) -> Result<Transformer> {
    let width = attention.embed_dim;
    let block = BlockConfig {
        norm_first: true,
        dropout,
        ..BlockConfig::new(attention, MlpConfig::new(4 * width, Activation::Gelu))
    };
    Transformer::new(scope, &TransformerConfig { num_layers: layers, block, final_norm: true })
}

/// Pictures → what can be seen of them → the whole.
pub struct MaskedAutoencoder {
    modality: Modality,
    spec: InputSpec,
    project: Linear,
    positions: Tensor,
    encoder: Transformer,
    narrow: Linear,
    hidden: Tensor,
    decoder_positions: Tensor,
    decoder: Transformer,
    last: Linear,
    config: MaskedAutoencoderConfig,
}

impl MaskedAutoencoder {
    /// Stacks `encoder` and `decoder` under `scope`.
    pub fn new(
        scope: &Scope<'_>,
        (modality, spec): (&Modality, &InputSpec),
        config: &MaskedAutoencoderConfig,
    ) -> Result<Self> {
        let c = config;
        let [height, width] = c.patch_size;
        let fits = spec.shape.len() == 3
            && height > 0
            && width > 0
            && spec.shape[1] % height == 0
            && spec.shape[2] % width == 0;
        if !fits {
            let wanted = format!("a size that divides pictures of {:?} evenly", spec.shape);
            return Err(Error::config("model.patch_size", format!("{:?}", c.patch_size), wanted));
        }
        let count = (spec.shape[1] / height) * (spec.shape[2] / width);
        let seen = Self::seen(count, c.mask_ratio);
        if !(0.0..1.0).contains(&c.mask_ratio) || seen == count || seen < 1 {
            let wanted = format!("a share in (0, 1) that hides some of the {count} patches and leaves some");
            return Err(Error::config("model.mask_ratio", c.mask_ratio, wanted));
        }
        let patch = spec.shape[0] * height * width;
        let places = |name: &str, width: i64| scope.param(name, &[1, count, width], Init::Normal(0.02));
        Ok(Self {
            modality: modality.clone(),
            spec: spec.clone(),
            project: Linear::new(&scope.pp("patch_embedding"), patch, c.embed_dim, true)?,
            positions: places("position_embedding", c.embed_dim)?,
            encoder: stack(&scope.pp("encoder"), AttentionConfig::new(c.embed_dim, c.num_heads), c.num_layers, 0.0)?,
            narrow: Linear::new(&scope.pp("decoder_embed"), c.embed_dim, c.decoder_embed_dim, true)?,
            hidden: scope.param("mask_token", &[1, 1, c.decoder_embed_dim], Init::Normal(0.02))?,
            decoder_positions: places("decoder_position_embedding", c.decoder_embed_dim)?,
            decoder: stack(
                &scope.pp("decoder"),
                AttentionConfig::new(c.decoder_embed_dim, c.num_heads),
                c.decoder_num_layers,
                0.0,
            )?,
            last: Linear::new(&scope.pp("decoder_pred"), c.decoder_embed_dim, patch, true)?,
            config: c.clone(),
        })
    }

    fn seen(patches: i64, hide: f64) -> i64 {
        patches - (patches as f64 * hide).round() as i64
    }

    /// `[rows, channels, height, width]` → `[rows, patches, numbers of a patch]`.
    fn patches(&self, x: &Tensor) -> Result<Tensor> {
        let ([ph, pw], s) = (self.config.patch_size, &self.spec.shape);
        let (down, across) = (s[1] / ph, s[2] / pw);
        x.reshape(&[-1, s[0], down, ph, across, pw])?.permute(&[0, 2, 4, 3, 5, 1])?.reshape(&[
            -1,
            down * across,
            ph * pw * s[0],
        ])
    }

    /// And back.
    fn picture(&self, patches: &Tensor) -> Result<Tensor> {
        let ([ph, pw], s) = (self.config.patch_size, &self.spec.shape);
        let (down, across) = (s[1] / ph, s[2] / pw);
        patches
            .reshape(&[-1, down, across, ph, pw, s[0]])?
            .permute(&[0, 5, 1, 3, 2, 4])?
            .reshape(&[-1, s[0], s[1], s[2]])
    }

    /// What is made of hidden and seen patches alike, `[rows, patches, numbers]`, and `[rows, patches, 1]`, 1 where hidden.
    fn fill(&self, patches: &Tensor, train: bool) -> Result<(Tensor, Tensor)> {
        let (rows, count) = (patches.size(0)?, patches.size(1)?);
        let seen = Self::seen(count, self.config.mask_ratio);
        // Each row its own order: the first are seen.
        let order = Tensor::rand(&[rows, count], DType::F32, patches.device())?.argsort(1, false)?;
        let back = order.argsort(1, false)?; // [rows, patches]
        let pick = |x: &Tensor, places: &Tensor| -> Result<Tensor> {
            let width = x.size(2)?;
            x.gather(1, &places.unsqueeze(-1)?.expand(&[-1, -1, width])?)
        };
        let first = order.narrow(1, 0, seen)?;
        // Chosen before they are projected: what is hidden costs nothing.
        let positions = self.positions.expand(&[rows, -1, -1])?;
        let x = self.project.forward(&pick(patches, &first)?, train)?.add(&pick(&positions, &first)?)?;
        let x =
            self.narrow.forward(&self.encoder.forward(&x, ForwardArgs { train, ..ForwardArgs::default() })?, train)?; // [rows, seen, width]
        let gaps = self.hidden.expand(&[rows, count - seen, -1])?;
        let x = pick(&Tensor::cat(&[&x, &gaps], 1)?, &back)?.add(&self.decoder_positions)?; // [rows, patches, width]
        let made =
            self.last.forward(&self.decoder.forward(&x, ForwardArgs { train, ..ForwardArgs::default() })?, train)?;
        let hidden = back.gt_scalar(seen as f64 - 0.5)?.to_dtype(DType::F32)?.unsqueeze(-1)?;
        Ok((made, hidden))
    }

    /// Mean and deviation of each patch, where they are compared without.
    fn level(&self, patches: &Tensor) -> Result<Option<(Tensor, Tensor)>> {
        if !self.config.norm_pix_loss {
            return Ok(None);
        }
        let deviation = patches.std_dim(&[-1], false, true)?.add_scalar(1e-3)?;
        Ok(Some((patches.mean_dim(&[-1], true)?, deviation)))
    }
}

impl RepresentationLearner for MaskedAutoencoder {
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>> {
        let Some((values, _)) = rows_with(set, &self.modality)? else { return Ok(None) };
        let patches = self.patches(&values)?;
        let (made, hidden) = self.fill(&patches, train)?;
        let target = match self.level(&patches)? {
            Some((mean, deviation)) => patches.sub(&mean)?.div(&deviation)?,
            None => patches,
        };
        let off = made.sub(&target)?;
        let error = off.mul(&off)?.mean_dim(&[-1], true)?; // [rows, patches, 1]
        let loss = error.mul(&hidden)?.sum()?.div(&hidden.sum()?)?;
        let parts = vec![("reconstruction_error".to_owned(), loss.to_f64()?)];
        Ok(Some((loss, parts)))
    }

    fn encode(&self, set: &InputSet) -> Result<Tensor> {
        self.features(set)?.pool(mm_core::Pooling::Mean)
    }

    fn features(&self, set: &InputSet) -> Result<Features> {
        let patches = self.patches(&set.get(&self.modality)?.0.values)?;
        let x = self.project.forward(&patches, false)?.add(&self.positions)?;
        Features::new(self.encoder.forward(&x, ForwardArgs::default())?, None)
    }

    fn dim(&self) -> i64 {
        self.config.embed_dim
    }

    /// What is hidden is made; what is seen stays as it is.
    fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        if *modality != self.modality {
            return Ok(None);
        }
        let patches = self.patches(&set.get(modality)?.0.values)?;
        let (mut made, hidden) = self.fill(&patches, false)?;
        if let Some((mean, deviation)) = self.level(&patches)? {
            made = made.mul(&deviation)?.add(&mean)?;
        }
        let seen = hidden.gt_scalar(0.5)?.logical_not()?;
        self.picture(&patches.where_cond(&seen, &made)?).map(Some)
    }
}
