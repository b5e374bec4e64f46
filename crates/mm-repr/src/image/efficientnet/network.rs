//! The network: a stem, inverted bottlenecks (MBConv) and a head.

use crate::{
    Result,
    family::{Model, ModelBuilder, PretrainedEncoder, Tower},
};
use mm_core::{
    Encoder, Features, Input, Modality, Pooling, Scope, Tensor,
    nn::{Activation, BatchNorm, Conv2d, ConvConfig, Linear},
};
use mm_data::{ImageProcessor, ImageProcessorConfig};

/// Zero padding of a convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Padding {
    /// TensorFlow's SAME: the output has ⌈size / stride⌉ rows, and an odd zero goes right and below.
    Same,
    /// This many zeros before and after.
    Explicit(i64, i64),
}

const NO_PADDING: Padding = Padding::Explicit(0, 0);

/// An inverted bottleneck.
pub(super) struct BlockSpec {
    /// Scope of its parameters.
    pub(super) scope: String,
    pub(super) input: i64,
    pub(super) expanded: i64,
    pub(super) output: i64,
    pub(super) kernel: i64,
    pub(super) stride: i64,
    /// Channels of squeeze-and-excitation; 0 for none.
    pub(super) squeeze: i64,
    pub(super) padding: Padding,
    pub(super) residual: bool,
}

/// Sizes of a network.
pub(super) struct Architecture {
    pub(super) channels: i64,
    pub(super) stem: i64,
    pub(super) stem_padding: Padding,
    pub(super) blocks: Vec<BlockSpec>,
    pub(super) head: i64,
    pub(super) norm_eps: f64,
    pub(super) activation: Activation,
    pub(super) pooling: Pooling,
}

fn pointwise(input: i64, output: i64, bias: bool) -> ConvConfig {
    ConvConfig { in_channels: input, out_channels: output, kernel_size: 1, stride: 1, padding: 0, groups: 1, bias }
}

/// A convolution with its batch normalization folded in, and an activation.
struct ConvNorm {
    conv: Conv2d,
    /// Kernel and stride, where SAME padding depends on the size of the input.
    same: Option<(i64, i64)>,
    /// Zeros before and after, where they differ.
    asymmetric: Option<(i64, i64)>,
    activation: Activation,
}

impl ConvNorm {
    /// `names` are the scopes of convolution and normalization.
    fn new(
        scope: &Scope<'_>,
        names: (&str, &str),
        norm_eps: f64,
        mut config: ConvConfig,
        padding: Padding,
        activation: Activation,
    ) -> mm_core::Result<Self> {
        let (kernel, stride) = (config.kernel_size, config.stride);
        let (mut same, mut asymmetric) = (None, None);
        match padding {
            Padding::Same if stride == 1 && kernel % 2 == 1 => config.padding = kernel / 2,
            Padding::Same => same = Some((kernel, stride)),
            Padding::Explicit(before, after) if before == after => config.padding = before,
            Padding::Explicit(before, after) => asymmetric = Some((before, after)),
        }
        let norm = BatchNorm::new(&scope.pp(names.1), config.out_channels, norm_eps, 0.01)?;
        Ok(Self {
            conv: Conv2d::with_folded_batch_norm(&scope.pp(names.0), config, &norm)?,
            same,
            asymmetric,
            activation,
        })
    }

    fn forward(&self, x: &Tensor, residual: Option<Tensor>) -> mm_core::Result<Tensor> {
        let mut x = x.clone();
        if let Some((before, after)) = self.asymmetric {
            x = x.pad(&[before, after, before, after], 0.0)?;
        }
        if let Some((kernel, stride)) = self.same {
            let total = |size: i64| (((size + stride - 1) / stride - 1) * stride + kernel - size).max(0);
            let (height, width) = (total(x.size(2)?), total(x.size(3)?));
            x = x.pad(&[width / 2, width - width / 2, height / 2, height - height / 2], 0.0)?;
        }
        self.conv.forward_fused(&x, self.activation, residual)
    }
}

/// Channel gates computed from the mean over the map.
///
/// *Squeeze-and-Excitation Networks* (Hu et al., 2017), <https://arxiv.org/abs/1709.01507>.
struct SqueezeExcite {
    reduce: Conv2d,
    expand: Conv2d,
    activation: Activation,
}

impl SqueezeExcite {
    fn forward(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let pooled = x.mean_dim(&[2, 3], true)?; // [batch, channels, 1, 1]
        let reduced = self.reduce.forward_fused(&pooled, self.activation, None)?;
        x.mul(&self.expand.forward_fused(&reduced, Activation::Sigmoid, None)?)
    }
}

struct Block {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    squeeze_excite: Option<SqueezeExcite>,
    project: ConvNorm,
    residual: bool,
}

impl Block {
    fn new(scope: &Scope<'_>, architecture: &Architecture, spec: &BlockSpec) -> mm_core::Result<Self> {
        let activation = architecture.activation;
        let conv_norm = |names, config, padding, activation| {
            ConvNorm::new(scope, names, architecture.norm_eps, config, padding, activation)
        };
        let expanded = spec.expanded;
        let squeeze_excite = if spec.squeeze > 0 {
            let reduce = Conv2d::new(&scope.pp("_se_reduce"), pointwise(expanded, spec.squeeze, true))?;
            let expand = Conv2d::new(&scope.pp("_se_expand"), pointwise(spec.squeeze, expanded, true))?;
            Some(SqueezeExcite { reduce, expand, activation })
        } else {
            None
        };
        let expand = pointwise(spec.input, expanded, false);
        let expand = (expanded != spec.input)
            .then(|| conv_norm(("_expand_conv", "_bn0"), expand, NO_PADDING, activation))
            .transpose()?;
        let (kernel, stride) = (spec.kernel, spec.stride);
        let depthwise =
            ConvConfig { kernel_size: kernel, stride, groups: expanded, ..pointwise(expanded, expanded, false) };
        let project = pointwise(expanded, spec.output, false);
        Ok(Self {
            expand,
            depthwise: conv_norm(("_depthwise_conv", "_bn1"), depthwise, spec.padding, activation)?,
            squeeze_excite,
            project: conv_norm(("_project_conv", "_bn2"), project, NO_PADDING, Activation::Identity)?,
            residual: spec.residual,
        })
    }

    /// Takes the input, so that its memory can hold the sum with it.
    fn forward(&self, input: Tensor) -> mm_core::Result<Tensor> {
        let mut x = match &self.expand {
            Some(expand) => expand.forward(&input, None)?, // [batch, expanded, height, width]
            None => input.clone(),
        };
        x = self.depthwise.forward(&x, None)?;
        if let Some(squeeze_excite) = &self.squeeze_excite {
            x = squeeze_excite.forward(&x)?;
        }
        self.project.forward(&x, self.residual.then_some(input))
    }
}

/// Pixels `[batch, 3, height, width]` → features `[batch, positions, channels]`.
struct EfficientNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
    head: ConvNorm,
    classifier: Option<Linear>,
    pooling: Pooling,
    channels: i64,
}

impl EfficientNet {
    /// Parameters are named as in `efficientnet_pytorch`.
    fn new(b: &ModelBuilder<'_>, a: &Architecture) -> Result<Self> {
        let conv_norm =
            |names, config, padding| ConvNorm::new(&b.scope, names, a.norm_eps, config, padding, a.activation);
        let stem = ConvConfig { kernel_size: 3, stride: 2, ..pointwise(a.channels, a.stem, false) };
        let stem = conv_norm(("_conv_stem", "_bn0"), stem, a.stem_padding)?;
        let blocks = a.blocks.iter().map(|spec| Block::new(&b.scope.pp(&spec.scope), a, spec));
        let blocks = blocks.collect::<mm_core::Result<Vec<_>>>()?;
        let last = a.blocks.last().map_or(a.stem, |spec| spec.output);
        let head = conv_norm(("_conv_head", "_bn1"), pointwise(last, a.head, false), NO_PADDING)?;
        let fc = b.scope.pp("_fc");
        let classifier = fc.has("weight").then(|| Linear::new(&fc, a.head, b.num_labels(), true)).transpose()?;
        Ok(Self { stem, blocks, head, classifier, pooling: a.pooling, channels: a.head })
    }
}

impl Encoder for EfficientNet {
    fn encode(&self, input: &Input, _train: bool) -> mm_core::Result<Features> {
        let mut x = self.stem.forward(&input.values, None)?;
        for block in &self.blocks {
            x = block.forward(x)?;
        }
        Features::new(self.head.forward(&x, None)?.flatten(2, 3)?.transpose(1, 2)?, None)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        Ok(self.encode_and_embed(input, train)?.1)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> mm_core::Result<(Features, Tensor)> {
        let features = self.encode(input, train)?;
        let embedding = features.pool(self.pooling)?;
        Ok((features, embedding))
    }

    fn dim(&self) -> i64 {
        self.channels
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl PretrainedEncoder for EfficientNet {
    fn classifier(&self) -> Option<&Linear> {
        self.classifier.as_ref()
    }
}

pub(super) fn build(b: &ModelBuilder<'_>, architecture: &Architecture, c: ImageProcessorConfig) -> Result<Model> {
    Ok(Tower::new(ImageProcessor::new(c), EfficientNet::new(b, architecture)?).into())
}
