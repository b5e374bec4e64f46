//! `EfficientNet` (Tan 2019) and its Lite kind (no squeeze-and-excitation, ReLU6, stem and head of fixed width): inverted bottlenecks
//! with TensorFlow's SAME padding. Outside training each convolution has its normalisation folded in.

use mm_core::{
    Encoder, Features, Input, Modality, Module, Result, Scope, Tensor,
    nn::{Activation, BatchNorm, Conv2d, ConvConfig, Linear},
};
use serde::{Deserialize, Serialize};

/// Sizes, in the words of transformers' `EfficientNetConfig`; `lite` and `squeeze_expansion_ratio = 0` make the Lite kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EfficientNetConfig {
    /// Scales the channels.
    pub width_coefficient: f64,
    /// Scales the repeats.
    pub depth_coefficient: f64,
    /// Channels are multiples of this.
    pub depth_divisor: i64,
    /// Window of each stage.
    pub kernel_sizes: Vec<i64>,
    /// Channels into each stage, before scaling.
    pub in_channels: Vec<i64>,
    /// Channels out of each stage, before scaling.
    pub out_channels: Vec<i64>,
    /// Step of each stage.
    pub strides: Vec<i64>,
    /// Blocks of each stage, before scaling.
    pub num_block_repeats: Vec<i64>,
    /// How much wider the middle of each stage's blocks is.
    pub expand_ratios: Vec<i64>,
    /// Squeeze-and-excitation's width over the block's input; 0 for none.
    pub squeeze_expansion_ratio: f64,
    /// Channels out of the head, before scaling.
    pub hidden_dim: i64,
    /// Added to the variance in normalisations.
    pub batch_norm_eps: f64,
    /// Weight of the newest batch in the running statistics.
    #[serde(default = "momentum")]
    pub batch_norm_momentum: f64,
    /// What stands between the layers.
    pub hidden_act: Activation,
    /// Whether stem, head, first and last stage keep their published size whatever the coefficients.
    #[serde(default)]
    pub lite: bool,
    /// Number of classes of the classifier; 0 for none.
    #[serde(default)]
    pub num_labels: i64,
}

fn momentum() -> f64 {
    0.01
}

impl EfficientNetConfig {
    fn channels(&self, base: i64) -> i64 {
        let (divisor, wanted) = (self.depth_divisor.max(1), base as f64 * self.width_coefficient);
        let rounded = ((wanted + divisor as f64 / 2.0) as i64 / divisor * divisor).max(divisor);
        // Never more than a tenth less than what was asked for.
        if (rounded as f64) < 0.9 * wanted { rounded + divisor } else { rounded }
    }

    fn check(&self) -> Result<()> {
        let stages = self.kernel_sizes.len();
        let all = [&self.in_channels, &self.out_channels, &self.strides, &self.num_block_repeats, &self.expand_ratios];
        let positive = all.iter().chain([&&self.kernel_sizes]).all(|l| l.iter().all(|v| *v > 0));
        if stages == 0 || all.iter().any(|l| l.len() != stages) || !positive {
            return Err(mm_core::Error::config(
                "kernel_sizes, in_channels, out_channels, strides, num_block_repeats, expand_ratios",
                "lists of different lengths, or sizes below one",
                "positive sizes, as many in each list as there are stages",
            ));
        }
        Ok(())
    }
}

/// A convolution with its normalisation, folded into one when frozen.
struct ConvNorm {
    conv: Conv2d,
    norm: Option<BatchNorm>,
    kernel: i64,
    stride: i64,
    activation: Activation,
}

impl ConvNorm {
    fn new(
        scope: &Scope<'_>,
        names: (&str, &str),
        config: &EfficientNetConfig,
        sizes: ConvConfig,
        activation: Activation,
    ) -> Result<Self> {
        let conv = Conv2d::new(&scope.pp(names.0), sizes)?;
        let norm = BatchNorm::new(&scope.pp(names.1), sizes.output, config.batch_norm_eps, config.batch_norm_momentum)?;
        let (kernel, stride) = (sizes.kernel, sizes.stride);
        if scope.is_frozen() {
            return Ok(Self { conv: conv.fold(&norm)?, norm: None, kernel, stride, activation });
        }
        Ok(Self { conv, norm: Some(norm), kernel, stride, activation })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.conv.forward(&same(x, self.kernel, self.stride)?, train)?;
        let x = match &self.norm {
            Some(norm) => norm.forward(&x, train)?,
            None => x,
        };
        self.activation.apply(&x)
    }
}

/// TensorFlow's SAME: the output is ⌈size / stride⌉, an odd zero goes to the right and below.
fn same(x: &Tensor, kernel: i64, stride: i64) -> Result<Tensor> {
    let need = |size: i64| (((size + stride - 1) / stride - 1) * stride + kernel - size).max(0);
    let (height, width) = (need(x.size(2)?), need(x.size(3)?));
    if height == 0 && width == 0 {
        return Ok(x.clone());
    }
    x.pad(&[width / 2, width - width / 2, height / 2, height - height / 2], 0.0)
}

struct Block {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    squeeze: Option<(Conv2d, Conv2d, Activation)>,
    project: ConvNorm,
    skip: bool,
}

impl Block {
    fn new(scope: &Scope<'_>, config: &EfficientNetConfig, sizes: ConvConfig, ratio: i64) -> Result<Self> {
        let wide = sizes.input * ratio;
        let plain =
            |input, output| ConvConfig { input, output, kernel: 1, stride: 1, padding: 0, groups: 1, bias: false };
        let act = config.hidden_act;
        let deep = ConvConfig { input: wide, output: wide, groups: wide, ..sizes };
        let narrow = ((sizes.input as f64 * config.squeeze_expansion_ratio) as i64).max(1);
        let squeeze = (config.squeeze_expansion_ratio > 0.0)
            .then(|| -> Result<_> {
                let reduce = Conv2d::new(&scope.pp("_se_reduce"), ConvConfig { bias: true, ..plain(wide, narrow) })?;
                Ok((
                    reduce,
                    Conv2d::new(&scope.pp("_se_expand"), ConvConfig { bias: true, ..plain(narrow, wide) })?,
                    act,
                ))
            })
            .transpose()?;
        let expand = (ratio != 1)
            .then(|| ConvNorm::new(scope, ("_expand_conv", "_bn0"), config, plain(sizes.input, wide), act))
            .transpose()?;
        Ok(Self {
            expand,
            depthwise: ConvNorm::new(scope, ("_depthwise_conv", "_bn1"), config, deep, act)?,
            squeeze,
            project: ConvNorm::new(
                scope,
                ("_project_conv", "_bn2"),
                config,
                plain(wide, sizes.output),
                Activation::Identity,
            )?,
            skip: sizes.stride == 1 && sizes.input == sizes.output,
        })
    }

    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = match &self.expand {
            Some(expand) => expand.forward(input, train)?, // [batch, wide, height, width]
            None => input.clone(),
        };
        x = self.depthwise.forward(&x, train)?;
        if let Some((reduce, expand, act)) = &self.squeeze {
            let pooled = x.mean_dims(&[2, 3], true)?; // [batch, wide, 1, 1]
            let gate = expand.forward(&act.apply(&reduce.forward(&pooled, train)?)?, train)?.sigmoid()?;
            x = x.mul(&gate)?;
        }
        x = self.project.forward(&x, train)?;
        if self.skip { x.add(input) } else { Ok(x) }
    }
}

/// Pixels `[batch, 3, height, width]` → features `[batch, places, channels]`, and ImageNet's logits where there is a classifier.
pub(crate) struct EfficientNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
    head: ConvNorm,
    classifier: Option<Linear>,
    width: i64,
}

impl EfficientNet {
    /// The network under `scope`, named as the `efficientnet` packages for `PyTorch` name it.
    pub(crate) fn new(scope: &Scope<'_>, config: &EfficientNetConfig) -> Result<Self> {
        config.check()?;
        let fixed = |base: i64| if config.lite { base } else { config.channels(base) };
        let stem_width = fixed(32);
        let stem =
            ConvConfig { input: 3, output: stem_width, kernel: 3, stride: 2, padding: 0, groups: 1, bias: false };
        let mut blocks = Vec::new();
        let stages = config.kernel_sizes.len();
        let mut output = stem_width;
        for stage in 0..stages {
            let mut input = if config.lite && stage == 0 { 32 } else { config.channels(config.in_channels[stage]) };
            output = config.channels(config.out_channels[stage]);
            let base = config.num_block_repeats[stage];
            let unscaled = config.lite && (stage == 0 || stage == stages - 1);
            let repeats = if unscaled { base } else { (config.depth_coefficient * base as f64).ceil() as i64 };
            for repeat in 0..repeats {
                let stride = if repeat == 0 { config.strides[stage] } else { 1 };
                let sizes = ConvConfig {
                    input,
                    output,
                    kernel: config.kernel_sizes[stage],
                    stride,
                    padding: 0,
                    groups: 1,
                    bias: false,
                };
                blocks.push(Block::new(
                    &scope.pp("_blocks").pp(blocks.len()),
                    config,
                    sizes,
                    config.expand_ratios[stage],
                )?);
                input = output;
            }
        }
        let width = fixed(config.hidden_dim);
        let head =
            ConvConfig { input: output, output: width, kernel: 1, stride: 1, padding: 0, groups: 1, bias: false };
        Ok(Self {
            stem: ConvNorm::new(scope, ("_conv_stem", "_bn0"), config, stem, config.hidden_act)?,
            blocks,
            head: ConvNorm::new(scope, ("_conv_head", "_bn1"), config, head, config.hidden_act)?,
            classifier: (config.num_labels > 0)
                .then(|| Linear::new(&scope.pp("_fc"), width, config.num_labels, true))
                .transpose()?,
            width,
        })
    }

    fn map(&self, pixels: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = self.stem.forward(pixels, train)?;
        for block in &self.blocks {
            x = block.forward(&x, train)?;
        }
        self.head.forward(&x, train) // [batch, channels, height, width]
    }
}

impl Encoder for EfficientNet {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        Features::new(self.map(&input.values, train)?.flatten(2, 3)?.transpose(1, 2)?, None)
    }

    fn width(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl crate::family::Network for EfficientNet {
    fn classifier(&self) -> Option<&Linear> {
        self.classifier.as_ref()
    }
}

/// The `efficientnet` packages for PyTorch name their parameters as this file does.
pub(crate) const FAMILY: crate::family::Family = crate::family::Family {
    kind: "efficientnet",
    names: |_, _| crate::family::Names::default(),
    build: |b| {
        let network = EfficientNet::new(&b.scope, &b.parse()?)?;
        let processor = mm_data::ImageProcessor::new(super::preprocessing(b)?);
        Ok(crate::family::Tower::new(processor, network).into())
    },
};
