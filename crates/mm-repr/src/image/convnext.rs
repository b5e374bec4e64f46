//! ConvNeXt (Liu 2022) and ConvNeXt V2 (Woo 2023), whose blocks respond to the whole map instead of scaling their residual; under
//! transformers' names and under timm's.

use super::{preprocessing, timm_preprocessing};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Network, Tower, WeightMap, config, prefix},
};
use mm_core::{
    Encoder, Features, Init, Input, Modality, Module, Scope, Tensor,
    nn::{Activation, Conv2d, ConvConfig, Linear, Norm, NormConfig},
};
use mm_data::{ImageProcessor, ImageProcessorConfig};

config! {
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

fn norm(scope: &Scope<'_>, width: i64, epsilon: f64) -> Result<Norm> {
    Ok(Norm::new(scope, width, NormConfig { eps: epsilon, ..NormConfig::default() })?)
}

/// Normalises the channels of `[batch, channels, height, width]`.
fn over_channels(norm: &Norm, x: &Tensor) -> mm_core::Result<Tensor> {
    norm.forward(&x.permute(&[0, 2, 3, 1])?, false)?.permute(&[0, 3, 1, 2])
}

/// Global response normalisation: each channel by its norm over the map, relative to the others' (Woo 2023).
struct Response {
    weight: Tensor,
    bias: Tensor,
}

impl Response {
    fn forward(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let energy = x.pow(2.0)?.sum_dim(&[1, 2], true)?.sqrt()?; // [batch, 1, 1, channels]
        let relative = energy.div(&energy.mean_dim(&[-1], true)?.add_scalar(1e-6)?)?;
        x.mul(&relative)?.mul(&self.weight)?.add(&self.bias)?.add(x)
    }
}

struct Layer {
    depthwise: Conv2d,
    norm: Norm,
    expand: Linear,
    response: Option<Response>,
    reduce: Linear,
    scale: Option<Tensor>,
}

struct Stage {
    reduce: Option<(Norm, Conv2d)>,
    layers: Vec<Layer>,
}

/// Pixels `[batch, 3, height, width]` → features `[batch, places, channels]`; pooled: their mean, normalised.
struct ConvNext {
    stem: Conv2d,
    stem_norm: Norm,
    stages: Vec<Stage>,
    last: Norm,
    classifier: Option<Linear>,
    activation: Activation,
    width: i64,
}

impl ConvNext {
    fn new(b: &ModelBuilder<'_>, c: &ConvNextConfig, second: bool) -> Result<Self> {
        let scope = b.scope.pp("base");
        if c.depths.is_empty() || c.depths.len() != c.hidden_sizes.len() || c.patch_size < 1 {
            return Err(b.config_error(
                "depths, hidden_sizes: wanted as many of one as of the other, and a patch_size above 0",
            ));
        }
        let step = |scope: &Scope<'_>, input, output, size| {
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
        };
        let tables = scope.pp("embeddings");
        let mut input = c.hidden_sizes[0];
        let stem = step(&tables.pp("patch_embeddings"), c.num_channels, input, c.patch_size)?;
        let mut stages = Vec::new();
        for (number, (width, depth)) in c.hidden_sizes.iter().copied().zip(&c.depths).enumerate() {
            let place = scope.pp("encoder.stages").pp(number);
            let reduce = if number > 0 {
                let down = place.pp("downsampling_layer");
                Some((norm(&down.pp(0), input, 1e-6)?, step(&down.pp(1), input, width, 2)?))
            } else {
                None
            };
            let layer = |i: i64| -> Result<Layer> {
                let p = place.pp("layers").pp(i);
                let depthwise = ConvConfig { groups: width, bias: true, ..ConvConfig::same(width, width, 7) };
                let response = if second {
                    let g = p.pp("grn");
                    Some(Response {
                        weight: g.param("weight", &[4 * width], Init::Zeros)?,
                        bias: g.param("bias", &[4 * width], Init::Zeros)?,
                    })
                } else {
                    None
                };
                let scaled = !second && c.layer_scale_init_value > 0.0;
                Ok(Layer {
                    depthwise: Conv2d::new(&p.pp("dwconv"), depthwise)?,
                    norm: norm(&p.pp("layernorm"), width, 1e-6)?,
                    expand: Linear::new(&p.pp("pwconv1"), width, 4 * width, true)?,
                    response,
                    reduce: Linear::new(&p.pp("pwconv2"), 4 * width, width, true)?,
                    scale: scaled
                        .then(|| p.param("layer_scale_parameter", &[width], Init::Constant(c.layer_scale_init_value)))
                        .transpose()?,
                })
            };
            stages.push(Stage { reduce, layers: (0..*depth).map(layer).collect::<Result<_>>()? });
            input = width;
        }
        let head = b.scope.pp("classifier");
        Ok(Self {
            stem,
            stem_norm: norm(&tables.pp("layernorm"), c.hidden_sizes[0], 1e-6)?,
            stages,
            last: norm(&scope.pp("layernorm"), input, c.layer_norm_eps)?,
            classifier: head.has("weight").then(|| Linear::new(&head, input, b.num_labels(), true)).transpose()?,
            activation: c.hidden_act,
            width: input,
        })
    }
}

impl Encoder for ConvNext {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let mut x = over_channels(&self.stem_norm, &self.stem.forward(&input.values, train)?)?;
        for stage in &self.stages {
            if let Some((norm, conv)) = &stage.reduce {
                x = conv.forward(&over_channels(norm, &x)?, train)?;
            }
            for layer in &stage.layers {
                let y = layer.depthwise.forward(&x, train)?.permute(&[0, 2, 3, 1])?; // [batch, height, width, channels]
                let mut y = layer.expand.forward_activation(&layer.norm.forward(&y, train)?, self.activation)?;
                if let Some(response) = &layer.response {
                    y = response.forward(&y)?;
                }
                y = layer.reduce.forward(&y, train)?;
                if let Some(scale) = &layer.scale {
                    y = y.mul(scale)?;
                }
                x = x.add(&y.permute(&[0, 3, 1, 2])?)?;
            }
        }
        Features::new(x.flatten(2, 3)?.transpose(1, 2)?, None)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        self.last.forward(&self.encode(input, train)?.pool(mm_core::Pooling::Mean)?, train)
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl Network for ConvNext {
    fn classifier(&self) -> Option<&Linear> {
        self.classifier.as_ref()
    }
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "convnext",
        weight_map: |c, _| names(c, "convnext."),
        build: |b| build(b, &b.parse()?, false, preprocessing(b)?),
    },
    Family {
        model_type: "convnextv2",
        weight_map: |c, _| names(c, "convnextv2."),
        build: |b| build(b, &b.parse()?, true, preprocessing(b)?),
    },
    Family { model_type: "timm/convnext", weight_map: |_, _| timm_names(), build: timm },
];

fn names(checkpoint: &mm_core::Checkpoint, below: &str) -> WeightMap {
    WeightMap::new(&[("^base.", prefix(checkpoint, "embeddings.patch_embeddings.weight", &[below, ""]))])
}

fn timm_names() -> WeightMap {
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

fn timm(b: &ModelBuilder<'_>) -> Result<Model> {
    let shape = |name: &str| b.checkpoint.shape(name);
    let stem = shape("stem.0.weight").ok_or_else(|| b.config_error("the weights lack stem.0.weight"))?;
    if stem.len() != 4 {
        return Err(b.config_error("stem.0.weight: wanted a convolution"));
    }
    let (mut hidden_sizes, mut depths) = (Vec::new(), Vec::new());
    for stage in 0.. {
        let Some(width) = shape(&format!("stages.{stage}.blocks.0.norm.weight")).map(|s| s[0]) else { break };
        hidden_sizes.push(width);
        depths
            .push((0..1000).take_while(|i| shape(&format!("stages.{stage}.blocks.{i}.norm.weight")).is_some()).count()
                as i64);
    }
    let second = shape("stages.0.blocks.0.mlp.grn.weight").is_some();
    let scaled = shape("stages.0.blocks.0.gamma").is_some();
    let config = ConvNextConfig {
        num_channels: stem[1],
        patch_size: stem[2],
        hidden_sizes,
        depths,
        layer_norm_eps: 1e-6,
        layer_scale_init_value: if scaled { 1e-6 } else { 0.0 },
        ..ConvNextConfig::default()
    };
    build(b, &config, second, timm_preprocessing(b)?)
}

fn build(b: &ModelBuilder<'_>, config: &ConvNextConfig, second: bool, pixels: ImageProcessorConfig) -> Result<Model> {
    Ok(Tower::new(ImageProcessor::new(pixels), ConvNext::new(b, config, second)?).into())
}
