//! ConvNeXt and ConvNeXt V2, which replaces layer scale by global response normalization; under the names of
//! transformers and timm.
//!
//! *A ConvNet for the 2020s* (Liu et al., 2022), <https://arxiv.org/abs/2201.03545>; *ConvNeXt V2: Co-designing and
//! Scaling ConvNets with Masked Autoencoders* (Woo et al., 2023), <https://arxiv.org/abs/2301.00808>.

use super::{
    preprocess::{preprocessing, timm_preprocessing},
    timm::{architecture, check_model_args, shape, unsupported},
};
use crate::{
    Result, checkpoint_config,
    family::{Family, Model, ModelBuilder, PretrainedEncoder, Tower, WeightMap, detect_prefix},
};
use mm_core::{
    Encoder, Features, Init, Input, Modality, Module, Pooling, Scope, Tensor,
    nn::{Activation, Conv2d, ConvConfig, Linear, Norm, NormConfig},
};
use mm_data::{ImageProcessor, ImageProcessorConfig};

checkpoint_config! {
    /// transformers' `ConvNextConfig` and `ConvNextV2Config`.
    ConvNextConfig {
        num_channels: i64 = 3,
        patch_size: i64 = 4,
        hidden_sizes: Vec<i64> = vec![96, 192, 384, 768],
        depths: Vec<i64> = vec![3, 3, 9, 3],
        hidden_act: Activation = Activation::Gelu,
        layer_norm_eps: f64 = 1e-12,
        layer_scale_init_value: f64 = 1e-6,
    }
}

/// Which ConvNeXt.
#[derive(Clone, Copy, PartialEq)]
enum Version {
    V1,
    V2,
}

fn layer_norm(scope: &Scope<'_>, channels: i64, epsilon: f64) -> Result<Norm> {
    Ok(Norm::new(scope, channels, NormConfig { eps: epsilon, ..NormConfig::default() })?)
}

/// Layer normalization over the channels of `[batch, channels, height, width]`.
fn norm_channels_first(norm: &Norm, x: &Tensor) -> mm_core::Result<Tensor> {
    norm.forward(&x.permute(&[0, 2, 3, 1])?, false)?.permute(&[0, 3, 1, 2])
}

fn patchify(scope: &Scope<'_>, input: i64, output: i64, size: i64) -> mm_core::Result<Conv2d> {
    Conv2d::new(
        scope,
        ConvConfig {
            in_channels: input,
            out_channels: output,
            kernel_size: size,
            stride: size,
            padding: 0,
            groups: 1,
            bias: true,
        },
    )
}

/// Global response normalization: each channel is scaled by its norm over the map, relative to the other channels.
struct GlobalResponseNorm {
    weight: Tensor,
    bias: Tensor,
}

impl GlobalResponseNorm {
    fn new(scope: &Scope<'_>, channels: i64) -> Result<Self> {
        let param = |name: &str| scope.param(name, &[channels], Init::Zeros);
        Ok(Self { weight: param("weight")?, bias: param("bias")? })
    }

    /// `[batch, height, width, channels]` → the same.
    fn forward(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let norm = x.pow(2.0)?.sum_dim(&[1, 2], true)?.sqrt()?; // [batch, 1, 1, channels]
        let relative = norm.div(&norm.mean_dim(&[-1], true)?.add_scalar(1e-6)?)?;
        x.mul(&relative)?.mul(&self.weight)?.add(&self.bias)?.add(x)
    }
}

struct Block {
    depthwise: Conv2d,
    norm: Norm,
    expand: Linear,
    response_norm: Option<GlobalResponseNorm>,
    reduce: Linear,
    layer_scale: Option<Tensor>,
}

impl Block {
    fn new(scope: &Scope<'_>, c: &ConvNextConfig, channels: i64, version: Version) -> Result<Self> {
        let depthwise = ConvConfig { groups: channels, bias: true, ..ConvConfig::same(channels, channels, 7) };
        let scale = c.layer_scale_init_value;
        let layer_scale = (version == Version::V1 && scale > 0.0)
            .then(|| scope.param("layer_scale_parameter", &[channels], Init::Constant(scale)));
        let response_norm =
            (version == Version::V2).then(|| GlobalResponseNorm::new(&scope.pp("grn"), 4 * channels)).transpose()?;
        Ok(Self {
            depthwise: Conv2d::new(&scope.pp("dwconv"), depthwise)?,
            norm: layer_norm(&scope.pp("layernorm"), channels, 1e-6)?,
            expand: Linear::new(&scope.pp("pwconv1"), channels, 4 * channels, true)?,
            response_norm,
            reduce: Linear::new(&scope.pp("pwconv2"), 4 * channels, channels, true)?,
            layer_scale: layer_scale.transpose()?,
        })
    }

    /// `[batch, channels, height, width]` → the same.
    fn forward(&self, x: &Tensor, activation: Activation, train: bool) -> mm_core::Result<Tensor> {
        let y = self.depthwise.forward(x, train)?.permute(&[0, 2, 3, 1])?; // [batch, height, width, channels]
        let mut y = self.expand.forward_activation(&self.norm.forward(&y, train)?, activation)?;
        if let Some(norm) = &self.response_norm {
            y = norm.forward(&y)?;
        }
        y = self.reduce.forward(&y, train)?;
        if let Some(scale) = &self.layer_scale {
            y = y.mul(scale)?;
        }
        x.add(&y.permute(&[0, 3, 1, 2])?)
    }
}

struct Stage {
    downsample: Option<(Norm, Conv2d)>,
    blocks: Vec<Block>,
}

/// Pixels `[batch, 3, height, width]` → features `[batch, positions, channels]`; the embedding is their normalized
/// mean.
struct ConvNext {
    stem: Conv2d,
    stem_norm: Norm,
    stages: Vec<Stage>,
    final_norm: Norm,
    classifier: Option<Linear>,
    activation: Activation,
    channels: i64,
}

impl ConvNext {
    fn new(b: &ModelBuilder<'_>, c: &ConvNextConfig, version: Version) -> Result<Self> {
        let scope = b.scope.pp("base");
        if c.depths.is_empty() || c.depths.len() != c.hidden_sizes.len() || c.patch_size < 1 {
            let reason = "depths, hidden_sizes: expected lists of the same length, not empty, and a patch_size above 0";
            return Err(b.config_error(reason));
        }
        let embeddings = scope.pp("embeddings");
        let mut input = c.hidden_sizes[0];
        let stem = patchify(&embeddings.pp("patch_embeddings"), c.num_channels, input, c.patch_size)?;
        let stem_norm = layer_norm(&embeddings.pp("layernorm"), input, 1e-6)?;
        let mut stages = Vec::new();
        for (index, (channels, depth)) in c.hidden_sizes.iter().copied().zip(&c.depths).enumerate() {
            let stage = scope.pp("encoder.stages").pp(index);
            let downsample = if index > 0 {
                let down = stage.pp("downsampling_layer");
                Some((layer_norm(&down.pp(0), input, 1e-6)?, patchify(&down.pp(1), input, channels, 2)?))
            } else {
                None
            };
            let block = |i: i64| Block::new(&stage.pp("layers").pp(i), c, channels, version);
            stages.push(Stage { downsample, blocks: (0..*depth).map(block).collect::<Result<_>>()? });
            input = channels;
        }
        let head = b.scope.pp("classifier");
        Ok(Self {
            stem,
            stem_norm,
            stages,
            final_norm: layer_norm(&scope.pp("layernorm"), input, c.layer_norm_eps)?,
            classifier: head.has("weight").then(|| Linear::new(&head, input, b.num_labels(), true)).transpose()?,
            activation: c.hidden_act,
            channels: input,
        })
    }
}

impl Encoder for ConvNext {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let mut x = norm_channels_first(&self.stem_norm, &self.stem.forward(&input.values, train)?)?;
        for stage in &self.stages {
            if let Some((norm, conv)) = &stage.downsample {
                x = conv.forward(&norm_channels_first(norm, &x)?, train)?;
            }
            for block in &stage.blocks {
                x = block.forward(&x, self.activation, train)?;
            }
        }
        Features::new(x.flatten(2, 3)?.transpose(1, 2)?, None)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        self.final_norm.forward(&self.encode(input, train)?.pool(Pooling::Mean)?, train)
    }

    fn dim(&self) -> i64 {
        self.channels
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl PretrainedEncoder for ConvNext {
    fn classifier(&self) -> Option<&Linear> {
        self.classifier.as_ref()
    }
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "convnext",
        weight_map: |c, _| weight_map(c, "convnext."),
        build: |b| build(b, &b.parse()?, Version::V1, preprocessing(b)?),
    },
    Family {
        model_type: "convnextv2",
        weight_map: |c, _| weight_map(c, "convnextv2."),
        build: |b| build(b, &b.parse()?, Version::V2, preprocessing(b)?),
    },
    Family { model_type: "timm/convnext", weight_map: |_, _| timm_weight_map(), build: build_timm },
];

fn weight_map(checkpoint: &mm_core::Checkpoint, prefix: &str) -> WeightMap {
    let prefix = detect_prefix(checkpoint, "embeddings.patch_embeddings.weight", &[prefix, ""]);
    WeightMap::new(&[("^base.", prefix)])
}

fn timm_weight_map() -> WeightMap {
    WeightMap::new(&[
        ("base.embeddings.patch_embeddings.", "stem.0."),
        ("base.embeddings.layernorm.", "stem.1."),
        ("base.encoder.stages.", "stages."),
        ("base.layernorm.", "head.norm."),
        ("^classifier.", "head.fc."),
        (".downsampling_layer.", ".downsample."),
        (".layers.", ".blocks."),
        (".dwconv.", ".conv_dw."),
        (".layernorm.", ".norm."),
        (".pwconv1.", ".mlp.fc1."),
        (".pwconv2.", ".mlp.fc2."),
        (".grn.", ".mlp.grn."),
        (".layer_scale_parameter", ".gamma"),
    ])
}

/// timm's checkpoints, whose sizes are read from the shapes of the weights.
fn build_timm(b: &ModelBuilder<'_>) -> Result<Model> {
    // The one with another epsilon in its normalizations.
    if architecture(b).starts_with("convnext_xxlarge") {
        return Err(unsupported(b, "another ConvNeXt"));
    }
    check_model_args(b, &["depths", "dims", "use_grn", "ls_init_value", "patch_size", "conv_mlp"])?;
    let has = |name: &str| b.checkpoint.shape(name).is_some();
    let [_, num_channels, patch_size, _] = shape(b, "stem.0.weight")?;
    let (mut hidden_sizes, mut depths) = (Vec::new(), Vec::new());
    for stage in 0.. {
        let norm = |i: usize| format!("stages.{stage}.blocks.{i}.norm.weight");
        if !has(&norm(0)) {
            break;
        }
        hidden_sizes.push(shape::<1>(b, &norm(0))?[0]);
        depths.push((0..1000).take_while(|i| has(&norm(*i))).count() as i64);
    }
    let v2 = has("stages.0.blocks.0.mlp.grn.weight");
    let scaled = has("stages.0.blocks.0.gamma");
    let config = ConvNextConfig {
        num_channels,
        patch_size,
        hidden_sizes,
        depths,
        layer_norm_eps: 1e-6,
        layer_scale_init_value: if scaled { 1e-6 } else { 0.0 },
        ..ConvNextConfig::default()
    };
    build(b, &config, if v2 { Version::V2 } else { Version::V1 }, timm_preprocessing(b)?)
}

fn build(
    b: &ModelBuilder<'_>,
    config: &ConvNextConfig,
    version: Version,
    processor: ImageProcessorConfig,
) -> Result<Model> {
    Ok(Tower::new(ImageProcessor::new(processor), ConvNext::new(b, config, version)?).into())
}
