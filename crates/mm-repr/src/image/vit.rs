//! The vision transformer (Dosovitskiy 2020) and what became of it: DeiT (Touvron 2020), DINOv2 (Oquab 2023) with registers
//! (Darcet 2023); its trunk serves CLIP's and SigLIP's towers, AST and VideoMAE too.

use super::preprocessing;
use crate::{
    Result,
    audio::SpectrogramProcessor,
    family::{Family, Model, ModelBuilder, Network, Tower, WeightMap, config, prefix},
};
use mm_core::{
    Checkpoint, Encoder, Features, Init, Input, Interpolation, Modality, Module, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, ForwardArgs, Linear, MlpConfig, Norm, NormConfig, NormKind,
        Transformer, TransformerConfig, sinusoidal_positions,
    },
};
use mm_data::{ImageProcessor, VideoProcessor};
use serde::Deserialize;
use serde_json::Value;

/// A size that configs write as one number or as two.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Pair {
    /// One number for both.
    Both(i64),
    /// Height, width.
    Each(i64, i64),
}

impl Pair {
    /// (height, width).
    pub fn get(self) -> [i64; 2] {
        match self {
            Self::Both(n) => [n, n],
            Self::Each(a, b) => [a, b],
        }
    }
}

config! {
    /// transformers' `ViTConfig`, `DeiTConfig` and `Dinov2Config` in one.
    VitConfig {
        hidden_size: i64 = 768,
        num_hidden_layers: i64 = 12,
        num_attention_heads: i64 = 12,
        intermediate_size: i64 = 3072,
        hidden_act: Activation = Activation::Gelu,
        layer_norm_eps: f64 = 1e-12,
        image_size: Pair = Pair::Both(224),
        patch_size: Pair = Pair::Both(16),
        num_channels: i64 = 3,
        qkv_bias: bool = true,
        mlp_ratio: f64 = 4.0,
        use_swiglu_ffn: bool = false,
        num_register_tokens: i64 = 4,
    }
}

/// How a picture, a spectrogram or a video is cut into patches: a convolution, whose step is its window unless patches overlap.
pub struct PatchEmbed {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: Vec<i64>,
    padding: [i64; 2],
}

impl PatchEmbed {
    /// A convolution under `scope` whose window is `kernel`: (height, width), or (frames, height, width).
    pub fn new(scope: &Scope<'_>, channels: i64, width: i64, kernel: &[i64], bias: bool) -> Result<Self> {
        let shape: Vec<i64> = [width, channels].iter().chain(kernel).copied().collect();
        let weight = scope.param("weight", &shape, Init::Normal(0.02))?;
        let bias = bias.then(|| scope.param("bias", &[width], Init::Zeros)).transpose()?;
        Ok(Self { weight, bias, stride: kernel.to_vec(), padding: [0, 0] })
    }

    /// The same with another step, and zeros around.
    pub fn step(mut self, stride: [i64; 2], padding: [i64; 2]) -> Self {
        (self.stride, self.padding) = (stride.to_vec(), padding);
        self
    }

    /// The convolution alone: `[batch, channels, height, width]` → `[batch, width, down, across]`.
    pub fn map(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        x.conv2d(&self.weight, self.bias.as_ref(), [self.stride[0], self.stride[1]], self.padding, 1)
    }

    /// The same of patches that lie apart already, `[…, channels · height · width]` of the window → `[…, width]`.
    pub fn of_pixels(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        x.linear(&self.weight.reshape(&[self.weight.size(0)?, -1])?, self.bias.as_ref())
    }

    /// Pictures `[batch, channels, height, width]`, spectrograms `[batch, frames, bands]` or videos
    /// `[batch, frames, channels, height, width]` → `[batch, patches, width]`, and how many lie (down, across).
    fn forward(&self, x: &Tensor) -> mm_core::Result<(Tensor, [i64; 2])> {
        let y = match (x.rank(), self.stride.as_slice()) {
            // Bands go down, time across.
            (3, _) => self.map(&x.unsqueeze(1)?.transpose(2, 3)?)?,
            (5, [time, down, across]) => {
                let x = x.permute(&[0, 2, 1, 3, 4])?;
                x.conv3d(&self.weight, self.bias.as_ref(), [*time, *down, *across])?.flatten(2, 3)?
            }
            _ => self.map(x)?,
        };
        let grid = [y.size(2)?, y.size(3)?];
        Ok((y.flatten(2, 3)?.transpose(1, 2)?, grid))
    }
}

/// How positions of another number of patches are made of the learned ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum PositionInterpolation {
    /// Bicubic.
    Bicubic,
    /// Bicubic with antialias.
    AntialiasedBicubic,
    /// They are not: another number is refused.
    Disabled,
}

/// The learned positions and the tokens before the patches.
pub struct Tokens {
    /// `[tokens, width]`: class, distillation, registers.
    pub before: Option<Tensor>,
    /// `[positions, width]`.
    pub positions: Tensor,
    /// How many of the positions are for tokens before the patches.
    pub placed: i64,
    /// Tokens put between those that have positions and the patches (registers) `[tokens, width]`.
    pub unplaced: Option<Tensor>,
    /// (down, across) of the learned positions.
    pub grid: [i64; 2],
    /// How they serve another number of patches.
    pub stretch: PositionInterpolation,
}

/// PatchEmbed, tokens, blocks.
pub struct VitBackbone {
    /// How the picture is cut.
    pub patches: PatchEmbed,
    /// Positions, and what stands before the patches.
    pub tokens: Tokens,
    /// A normalisation before the blocks (CLIP).
    pub first_norm: Option<Norm>,
    /// The blocks.
    pub blocks: Transformer,
    /// Width of the features.
    pub width: i64,
    /// What it takes.
    pub modality: Modality,
}

impl VitBackbone {
    /// `[batch, tokens before, width]` of tokens that are the same for each row.
    fn spread(tokens: &Tensor, rows: i64) -> mm_core::Result<Tensor> {
        tokens.unsqueeze(0)?.expand(&[rows, -1, -1])
    }

    fn positions(&self, grid: [i64; 2]) -> mm_core::Result<Tensor> {
        let t = &self.tokens;
        if grid == t.grid {
            return Ok(t.positions.clone());
        }
        if t.stretch == PositionInterpolation::Disabled {
            return Err(mm_core::Error::shape(
                "patches",
                &grid,
                format!("{:?}, as many as the model has positions", t.grid),
            ));
        }
        let special = t.positions.narrow(0, 0, t.placed)?;
        let flat = t.positions.narrow(0, t.placed, t.grid[0] * t.grid[1])?;
        let map = flat.reshape(&[1, t.grid[0], t.grid[1], self.width])?.permute(&[0, 3, 1, 2])?;
        // In float32: half precision would shift the positions.
        let mode = if t.stretch == PositionInterpolation::AntialiasedBicubic {
            Interpolation::BicubicAntialias
        } else {
            Interpolation::Bicubic { align_corners: false }
        };
        let map = map.to_dtype(mm_core::DType::F32)?.contiguous()?.interpolate(grid, mode)?;
        let flat = map.permute(&[0, 2, 3, 1])?.reshape(&[-1, self.width])?.to_dtype(t.positions.dtype()?)?;
        Tensor::cat(&[&special, &flat], 0)
    }

    /// What goes into the first block: `[batch, tokens, width]`.
    pub fn embed_patches(&self, pixels: &Tensor) -> mm_core::Result<Tensor> {
        let (mut x, grid) = self.patches.forward(pixels)?; // [batch, patches, width]
        let (rows, t) = (x.size(0)?, &self.tokens);
        let positions = self.positions(grid)?;
        match &t.before {
            Some(before) if t.placed > 0 => x = Tensor::cat(&[&Self::spread(before, rows)?, &x], 1)?.add(&positions)?,
            Some(before) => x = Tensor::cat(&[&Self::spread(before, rows)?, &x.add(&positions)?], 1)?,
            None => x = x.add(&positions)?,
        }
        if let Some(registers) = &t.unplaced {
            let first = t.before.as_ref().map_or(Ok(0), |b| b.size(0))?;
            let rest = x.size(1)? - first;
            x = Tensor::cat(
                &[&x.narrow(1, 0, first)?, &Self::spread(registers, rows)?, &x.narrow(1, first, rest)?],
                1,
            )?;
        }
        match &self.first_norm {
            Some(norm) => norm.forward(&x, false),
            None => Ok(x),
        }
    }
}

impl Encoder for VitBackbone {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let x = self.embed_patches(&input.values)?;
        Features::new(self.blocks.forward(&x, ForwardArgs { train, ..ForwardArgs::default() })?, None)
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        self.modality.clone()
    }
}

/// What a classifier reads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum ClassifierPooling {
    /// The first token.
    First,
    /// The mean of two classifiers' scores, of the first and of the second token.
    Two,
    /// The mean of the first two tokens.
    Pair,
    /// The first token beside the mean of all from this one on.
    FirstAndMean(i64),
    /// The mean of all from this one on.
    Mean(i64),
}

/// A trunk, what its family takes as the pooled vector, and maybe a classifier.
pub(crate) struct Vit {
    pub(crate) trunk: VitBackbone,
    /// `None`: the mean over all tokens.
    pub(crate) pooled: Option<ClassifierPooling>,
    pub(crate) reads: ClassifierPooling,
    /// A normalisation of what the classifier reads.
    pub(crate) norm: Option<Norm>,
    pub(crate) classifiers: Vec<Linear>,
}

fn read(x: &Tensor, how: ClassifierPooling) -> mm_core::Result<Tensor> {
    let from = |n: i64| x.narrow(1, n, x.size(1)? - n)?.mean_dim(&[1], false);
    match how {
        ClassifierPooling::First => x.select(1, 0),
        ClassifierPooling::Two | ClassifierPooling::Pair => x.narrow(1, 0, 2)?.mean_dim(&[1], false),
        ClassifierPooling::FirstAndMean(n) => Tensor::cat(&[&x.select(1, 0)?, &from(n)?], -1),
        ClassifierPooling::Mean(n) => from(n),
    }
}

impl Encoder for Vit {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.trunk.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let features = self.trunk.encode(input, train)?;
        match self.pooled {
            Some(how) => {
                let x = read(&features.values, how)?;
                self.norm.as_ref().map_or_else(|| Ok(x.clone()), |n| n.forward(&x, train))
            }
            None => features.pool(mm_core::Pooling::Mean),
        }
    }

    fn dim(&self) -> i64 {
        self.trunk.width
    }

    fn modality(&self) -> Modality {
        self.trunk.modality()
    }
}

impl Network for Vit {
    fn logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        let Some(first) = self.classifiers.first() else { return Ok(None) };
        let x = self.trunk.encode(input, false)?.values;
        if let (ClassifierPooling::Two, Some(second)) = (self.reads, self.classifiers.get(1)) {
            let both = first.forward(&x.select(1, 0)?, false)?.add(&second.forward(&x.select(1, 1)?, false)?)?;
            return Ok(Some(both.mul_scalar(0.5)?));
        }
        let mut y = read(&x, self.reads)?;
        if let Some(norm) = &self.norm {
            y = norm.forward(&y, false)?;
        }
        first.forward(&y, false).map(Some)
    }
}

/// A pre-norm block of a vision transformer.
pub fn vit_block(config: &VitConfig) -> BlockConfig {
    let norm = NormConfig { kind: NormKind::LayerNorm, eps: config.layer_norm_eps, bias: true };
    let attention = AttentionConfig {
        bias: config.qkv_bias,
        ..AttentionConfig::new(config.hidden_size, config.num_attention_heads)
    };
    let mlp = MlpConfig::new(config.intermediate_size, config.hidden_act);
    BlockConfig { norm, norm_first: true, ..BlockConfig::new(attention, mlp) }
}

/// transformers' words for the parts of a vision transformer, below the family's prefix; `5` wrote them anew.
pub fn vit_weight_map(checkpoint: &Checkpoint, families: &[&str]) -> WeightMap {
    let start = prefix(checkpoint, "embeddings.patch_embeddings.projection.weight", families);
    let newer = checkpoint.shape(&format!("{start}layers.0.attention.q_proj.weight")).is_some();
    let any = |part: &str| checkpoint.names().any(|n| n.contains(part));
    let short = any(".norm1.");
    let names = WeightMap::new(&[
        ("trunk.encoder.final_layer_norm.", "trunk.layernorm."),
        (".layer_norm1.", if short { ".norm1." } else { ".layernorm_before." }),
        (".layer_norm2.", if short { ".norm2." } else { ".layernorm_after." }),
        (".layer_scale1", ".layer_scale1.lambda1"),
        (".layer_scale2", ".layer_scale2.lambda1"),
    ]);
    let names = if newer {
        names.and(&[
            ("trunk.encoder.layers.", "trunk.layers."),
            (".self_attn.out_proj.", ".attention.o_proj."),
            (".self_attn.", ".attention."),
        ])
    } else {
        let plain = any(".intermediate.dense.");
        let names = names.and(&[
            (".layers.", ".layer."),
            (".self_attn.q_proj.", ".attention.attention.query."),
            (".self_attn.k_proj.", ".attention.attention.key."),
            (".self_attn.v_proj.", ".attention.attention.value."),
            (".self_attn.out_proj.", ".attention.output.dense."),
        ]);
        if plain { names.and(&[(".mlp.fc1.", ".intermediate.dense."), (".mlp.fc2.", ".output.dense.")]) } else { names }
    };
    names.and(&[("^trunk.", start)])
}

/// timm's words for the same.
pub(crate) fn timm_names() -> WeightMap {
    WeightMap::new(&[
        ("trunk.encoder.final_layer_norm.", "norm."),
        ("trunk.encoder.layers.", "blocks."),
        ("trunk.embeddings.patch_embeddings.projection.", "patch_embed.proj."),
        ("trunk.embeddings.cls_token", "cls_token"),
        ("trunk.embeddings.distillation_token", "dist_token"),
        ("trunk.embeddings.register_tokens", "reg_token"),
        ("trunk.embeddings.position_embeddings", "pos_embed"),
        (".layer_norm1.", ".norm1."),
        (".layer_norm2.", ".norm2."),
        (".layer_scale1", ".ls1.gamma"),
        (".layer_scale2", ".ls2.gamma"),
        (".self_attn.q_proj.", ".attn.qkv.#0/3"),
        (".self_attn.k_proj.", ".attn.qkv.#1/3"),
        (".self_attn.v_proj.", ".attn.qkv.#2/3"),
        (".self_attn.out_proj.", ".attn.proj."),
        ("^cls_classifier.", "head."),
        ("^distillation_classifier.", "head_dist."),
        ("^classifier.", "head."),
    ])
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family { model_type: "vit", weight_map: |c, _| vit_weight_map(c, &["vit.", ""]), build: |b| vit(b, false) },
    Family { model_type: "deit", weight_map: |c, _| vit_weight_map(c, &["deit.", ""]), build: |b| vit(b, true) },
    Family { model_type: "dinov2", weight_map: |c, _| dino_names(c, "dinov2."), build: |b| dino(b, false) },
    Family {
        model_type: "dinov2_with_registers",
        weight_map: |c, _| dino_names(c, "dinov2_with_registers."),
        build: |b| dino(b, true),
    },
    Family {
        model_type: "audio-spectrogram-transformer",
        weight_map: |c, _| vit_weight_map(c, &["audio_spectrogram_transformer.", ""]),
        build: ast,
    },
    Family { model_type: "videomae", weight_map: |c, _| videomae_names(c), build: videomae },
    Family { model_type: "timm/vision_transformer", weight_map: |_, _| timm_names(), build: timm },
];

fn dino_names(checkpoint: &Checkpoint, below: &str) -> WeightMap {
    let names = vit_weight_map(checkpoint, &[below, ""]);
    if checkpoint.names().any(|n| n.contains(".mlp.weights_in.")) {
        return names.and(&[
            (".mlp.fc1.", ".mlp.weights_in.#0/2"),
            (".mlp.gate.", ".mlp.weights_in.#1/2"),
            (".mlp.fc2.", ".mlp.weights_out."),
        ]);
    }
    if checkpoint.names().any(|n| n.contains(".mlp.gate_proj.")) {
        return names.and(&[
            (".mlp.fc1.", ".mlp.gate_proj."),
            (".mlp.gate.", ".mlp.up_proj."),
            (".mlp.fc2.", ".mlp.down_proj."),
        ]);
    }
    names
}

/// How many (down, across) patches a picture of that size has.
pub fn patch_grid(b: &ModelBuilder<'_>, config: &VitConfig, field: &str) -> Result<[i64; 2]> {
    steps(b, config, config.patch_size.get(), field)
}

/// The same for patches that overlap: a window every `stride`.
fn steps(b: &ModelBuilder<'_>, config: &VitConfig, stride: [i64; 2], field: &str) -> Result<[i64; 2]> {
    let ([height, width], [down, across]) = (config.image_size.get(), config.patch_size.get());
    if down < 1 || across < 1 || height < down || width < across || stride.iter().any(|s| *s < 1) {
        return Err(
            b.config_error(format!("{field}: found {down}×{across}, wanted at most the picture's {height}×{width}"))
        );
    }
    Ok([(height - down) / stride[0] + 1, (width - across) / stride[1] + 1])
}

/// What a trunk has beside patches and blocks.
struct Layout<'a> {
    /// Names of the tokens before the patches.
    special: &'a [&'a str],
    /// Whether those have positions.
    placed: bool,
    /// Number of registers.
    registers: Option<i64>,
    stretch: PositionInterpolation,
    /// The step of patches that overlap.
    stride: Option<[i64; 2]>,
    modality: Modality,
}

impl<'a> Layout<'a> {
    fn picture(special: &'a [&'a str]) -> Self {
        Self {
            special,
            placed: true,
            registers: None,
            stretch: PositionInterpolation::Bicubic,
            stride: None,
            modality: Modality::IMAGE,
        }
    }
}

fn trunk(b: &ModelBuilder<'_>, config: &VitConfig, layout: Layout<'_>, block: BlockConfig) -> Result<VitBackbone> {
    let scope = b.scope.pp("trunk");
    let tables = scope.pp("embeddings");
    let width = config.hidden_size;
    let patch = config.patch_size.get();
    let stride = layout.stride.unwrap_or(patch);
    let grid = steps(b, config, stride, "patch_size")?;
    let projection = tables.pp("patch_embeddings").pp("projection");
    let patches = PatchEmbed::new(&projection, config.num_channels, width, &patch, true)?.step(stride, [0, 0]);
    let token = |n: &&str| tables.param(n, &[1, width], Init::Normal(0.02));
    let tokens = layout.special.iter().map(token).collect::<Result<Vec<_>, _>>()?;
    let before = if tokens.is_empty() { None } else { Some(Tensor::cat(&tokens.iter().collect::<Vec<_>>(), 0)?) };
    let placed = if layout.placed { tokens.len() as i64 } else { 0 };
    let positions = tables.param("position_embeddings", &[grid[0] * grid[1] + placed, width], Init::Normal(0.02))?;
    let registers = layout.registers.map(|n| tables.param("register_tokens", &[n, width], Init::Normal(0.02)));
    Ok(VitBackbone {
        patches,
        tokens: Tokens { before, positions, placed, unplaced: registers.transpose()?, grid, stretch: layout.stretch },
        first_norm: None,
        blocks: b.transformer(
            &scope.pp("encoder"),
            TransformerConfig { num_layers: config.num_hidden_layers, block, final_norm: true },
        )?,
        width,
        modality: layout.modality,
    })
}

fn classifiers(b: &ModelBuilder<'_>, names: &[&str], width: i64) -> Result<Vec<Linear>> {
    if b.layer.is_some() || !names.iter().all(|n| b.scope.pp(n).has("weight")) {
        return Ok(Vec::new());
    }
    Ok(names.iter().map(|n| Linear::new(&b.scope.pp(n), width, b.num_labels(), true)).collect::<Result<_, _>>()?)
}

/// ViT's trunk, or DeiT's with its distillation token, under `trunk` of the scope.
pub fn vit_backbone(b: &ModelBuilder<'_>, distilled: bool) -> Result<VitBackbone> {
    let config: VitConfig = b.parse()?;
    let special: &[&str] = if distilled { &["cls_token", "distillation_token"] } else { &["cls_token"] };
    trunk(b, &config, Layout::picture(special), vit_block(&config))
}

fn vit(b: &ModelBuilder<'_>, distilled: bool) -> Result<Model> {
    let config: VitConfig = b.parse()?;
    let trunk = vit_backbone(b, distilled)?;
    let two = ["cls_classifier", "distillation_classifier"];
    let teacher = b.scope.pp(two[0]).has("weight");
    let names: &[&str] = if teacher { &two } else { &["classifier"] };
    let network = Vit {
        classifiers: classifiers(b, names, config.hidden_size)?,
        trunk,
        pooled: None,
        reads: if teacher { ClassifierPooling::Two } else { ClassifierPooling::First },
        norm: None,
    };
    Ok(Tower::new(ImageProcessor::new(preprocessing(b)?), network).into())
}

fn dino(b: &ModelBuilder<'_>, registers: bool) -> Result<Model> {
    let mut config: VitConfig = b.parse()?;
    if b.config["layer_norm_eps"].is_null() {
        config.layer_norm_eps = 1e-6;
    }
    let hidden = (config.hidden_size as f64 * config.mlp_ratio) as i64;
    let mut block = vit_block(&config);
    block.layer_scale = Some(1.0);
    block.mlp.hidden_dim = hidden;
    if config.use_swiglu_ffn {
        block.mlp.hidden_dim = ((hidden as f64 * 2.0 / 3.0) as i64 + 7) / 8 * 8;
        block.mlp.gated = true;
        block.mlp.activation = Activation::Silu;
    }
    let count = registers.then_some(config.num_register_tokens);
    let stretch = if registers { PositionInterpolation::AntialiasedBicubic } else { PositionInterpolation::Bicubic };
    let trunk = trunk(b, &config, Layout { registers: count, stretch, ..Layout::picture(&["cls_token"]) }, block)?;
    let network = Vit {
        classifiers: classifiers(b, &["classifier"], 2 * config.hidden_size)?,
        trunk,
        pooled: None,
        reads: ClassifierPooling::FirstAndMean(1 + count.unwrap_or(0)),
        norm: None,
    };
    let processor = ImageProcessor::new(preprocessing(b)?);
    Ok(Tower::new(processor, network).into())
}

config! {
    /// What transformers' `ASTConfig` adds.
    AstConfig {
        num_mel_bins: i64 = 128,
        max_length: i64 = 1024,
        frequency_stride: i64 = 10,
        time_stride: i64 = 10,
    }
}

/// The audio spectrogram transformer (Gong 2021): a distilled vision transformer over a spectrogram cut into patches that overlap.
fn ast(b: &ModelBuilder<'_>) -> Result<Model> {
    let (mut config, sound): (VitConfig, AstConfig) = (b.parse()?, b.parse()?);
    config.image_size = Pair::Each(sound.num_mel_bins, sound.max_length);
    config.num_channels = 1;
    let layout = Layout {
        stride: Some([sound.frequency_stride, sound.time_stride]),
        modality: Modality::AUDIO,
        stretch: PositionInterpolation::Disabled,
        ..Layout::picture(&["cls_token", "distillation_token"])
    };
    let (trunk, head) = (trunk(b, &config, layout, vit_block(&config))?, b.scope.pp("classifier"));
    let classifiers = classifiers(b, &["classifier.dense"], config.hidden_size)?;
    let norm = NormConfig { eps: config.layer_norm_eps, ..NormConfig::default() };
    let norm = (!classifiers.is_empty()).then(|| Norm::new(&head.pp("layernorm"), config.hidden_size, norm));
    let network = Vit { trunk, pooled: None, reads: ClassifierPooling::Pair, norm: norm.transpose()?, classifiers };
    Ok(Tower::new(SpectrogramProcessor::ast(b)?, network).into())
}

config! {
    /// What transformers' `VideoMAEConfig` adds; it wrote `qv_bias` as `qkv_bias` before.
    VideoConfig {
        num_frames: i64 = 16,
        tubelet_size: i64 = 2,
        use_mean_pooling: bool = true,
        qkv_bias: bool = true,
        qv_bias: Option<bool> = None,
    }
}

fn videomae_names(checkpoint: &Checkpoint) -> WeightMap {
    let names = vit_weight_map(checkpoint, &["videomae.", ""]);
    if checkpoint.names().any(|n| n.ends_with(".q_bias")) {
        return names.and(&[(".query.bias", ".q_bias"), (".value.bias", ".v_bias")]);
    }
    names
}

/// `VideoMAE` (Tong 2022): a vision transformer over tubes of a few frames, its positions fixed waves.
fn videomae(b: &ModelBuilder<'_>) -> Result<Model> {
    let (config, video): (VitConfig, VideoConfig) = (b.parse()?, b.parse()?);
    let (scope, width, patch) = (b.scope.pp("trunk"), config.hidden_size, config.patch_size.get());
    let tube = video.tubelet_size;
    if tube < 1 || video.num_frames < tube {
        return Err(b.config_error(format!("tubelet_size: found {tube}, wanted 1 to the {} frames", video.num_frames)));
    }
    let [down, across] = patch_grid(b, &config, "patch_size")?;
    let grid = [video.num_frames / tube * down, across];
    let mut block = vit_block(&config);
    block.attention.bias = video.qv_bias.unwrap_or(video.qkv_bias);
    block.attention.key_bias = false;
    let projection = scope.pp("embeddings.patch_embeddings.projection");
    let patches = PatchEmbed::new(&projection, config.num_channels, width, &[tube, patch[0], patch[1]], true)?;
    let positions = sinusoidal_positions(grid[0] * grid[1], width, false, b.scope.device())?;
    let positions = positions.to_dtype(patches.weight.dtype()?)?;
    let trunk = VitBackbone {
        patches,
        tokens: Tokens {
            before: None,
            positions,
            placed: 0,
            unplaced: None,
            grid,
            stretch: PositionInterpolation::Disabled,
        },
        first_norm: None,
        blocks: b.transformer(
            &scope.pp("encoder"),
            TransformerConfig { num_layers: config.num_hidden_layers, block, final_norm: !video.use_mean_pooling },
        )?,
        width,
        modality: Modality::VIDEO,
    };
    let classifiers = classifiers(b, &["classifier"], width)?;
    let averaged = video.use_mean_pooling && !classifiers.is_empty();
    let norm = averaged.then(|| Norm::new(&b.scope.pp("fc_norm"), width, NormConfig::default())).transpose()?;
    let reads = if video.use_mean_pooling { ClassifierPooling::Mean(0) } else { ClassifierPooling::First };
    let network = Vit { trunk, pooled: None, reads, norm, classifiers };
    let frames = usize::try_from(video.num_frames).unwrap_or(1);
    Ok(Tower::new(VideoProcessor::new(preprocessing(b)?, frames), network).into())
}

/// timm's folders name an architecture and a few changes; every size is in the tensors' shapes.
fn timm(b: &ModelBuilder<'_>) -> Result<Model> {
    let c = b.checkpoint;
    let shape = |name: &str| {
        c.shape(name).map(<[i64]>::to_vec).ok_or_else(|| b.config_error(format!("the weights lack {name}")))
    };
    let patch = shape("patch_embed.proj.weight")?;
    let width = patch[0];
    let name = b.config["architecture"].as_str().unwrap_or_default();
    let arguments = &b.config["model_args"];
    let input = &b.config["pretrained_cfg"]["input_size"];
    let side = |i: usize| input[i].as_i64().unwrap_or(224);
    // Heads are 64 wide in all of timm's plain vision transformers unless the folder says otherwise.
    let heads = arguments["num_heads"].as_i64().unwrap_or((width / 64).max(1));
    let layers = (0..1000).take_while(|i| c.shape(&format!("blocks.{i}.norm1.weight")).is_some()).count() as i64;
    let has = |name: &str| c.shape(name).is_some();
    for (part, what) in [
        ("norm_pre.weight", "a normalisation before the blocks"),
        ("blocks.0.attn.q_norm.weight", "normalised queries"),
        ("attn_pool.latent", "attention pooling"),
        ("blocks.0.mlp.w12.weight", "packed SwiGLU"),
    ] {
        if has(part) {
            return Err(b.config_error(format!(
                "architecture `{name}` has {what}, which mm's vision transformer of timm does not read"
            )));
        }
    }
    let config = VitConfig {
        hidden_size: width,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        intermediate_size: shape("blocks.0.mlp.fc1.weight")?[0],
        layer_norm_eps: 1e-6,
        image_size: Pair::Each(side(1), side(2)),
        patch_size: Pair::Each(patch[2], patch[3]),
        num_channels: patch[1],
        qkv_bias: has("blocks.0.attn.qkv.bias"),
        hidden_act: if name.contains("quickgelu") { Activation::QuickGelu } else { Activation::Gelu },
        ..VitConfig::default()
    };
    let mut special = Vec::new();
    for (token, ours) in [("cls_token", "cls_token"), ("dist_token", "distillation_token")] {
        if has(token) {
            special.push(ours);
        }
    }
    let registers = c.shape("reg_token").map(|s| s[s.len() - 2]);
    let mut block = vit_block(&config);
    block.layer_scale = has("blocks.0.ls1.gamma").then_some(1.0);
    // `no_embed_class`: the positions are for patches alone.
    let patches = patch_grid(b, &config, "patch_size")?.iter().product::<i64>();
    let placed = shape("pos_embed")?[1] > patches;
    let averaged = b.config["global_pool"].as_str().or(arguments["global_pool"].as_str()) == Some("avg");
    let skipped = special.len() as i64 + registers.unwrap_or(0);
    if !has("norm.weight") {
        return Err(
            b.config_error(format!("architecture `{name}` ends without a normalisation, which mm does not read"))
        );
    }
    let layout =
        Layout { placed, registers, stretch: PositionInterpolation::AntialiasedBicubic, ..Layout::picture(&special) };
    let trunk = trunk(b, &config, layout, block)?;
    let norm = has("fc_norm.weight")
        .then(|| Norm::new(&b.scope.pp("fc_norm"), width, NormConfig { eps: 1e-6, ..NormConfig::default() }))
        .transpose()?;
    let distilled = special.len() == 2;
    let reads = match (averaged, distilled) {
        (true, _) => ClassifierPooling::Mean(skipped),
        (false, true) => ClassifierPooling::Two,
        (false, false) => ClassifierPooling::First,
    };
    let names: &[&str] = if distilled { &["cls_classifier", "distillation_classifier"] } else { &["classifier"] };
    let network = Vit {
        classifiers: classifiers(b, names, width)?,
        trunk,
        pooled: Some(if distilled { ClassifierPooling::Pair } else { reads }),
        reads,
        norm,
    };
    Ok(Tower::new(ImageProcessor::new(super::timm_preprocessing(b)?), network).into())
}

/// Whether a `config.json` is timm's, and then of which kind.
pub(crate) fn timm_kind(config: &Value) -> Option<&'static str> {
    let name = config["architecture"].as_str()?;
    let starts = |list: &[&str]| list.iter().any(|s| name.starts_with(s));
    Some(if starts(&["vit_", "deit_", "deit3_"]) {
        "timm/vision_transformer"
    } else if starts(&["resnet", "wide_resnet", "resnext"]) {
        "timm/resnet"
    } else if starts(&["convnext"]) {
        "timm/convnext"
    } else if starts(&["efficientnet_", "tf_efficientnet_"]) {
        "timm/efficientnet"
    } else {
        return None;
    })
}
