//! `EfficientNet` (Tan 2019) and its Lite kind (no squeeze-and-excitation, ReLU6, stem and head of fixed width): inverted bottlenecks,
//! under the names of transformers, of timm, and of the `efficientnet` packages for `PyTorch`. Each convolution has its
//! normalisation folded in.

use super::{preprocessing, timm_preprocessing};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Network, Tower, WeightMap, config, prefix},
};
use mm_core::{
    Checkpoint, Encoder, Features, Input, Modality, Pooling, Scope, Tensor,
    nn::{Activation, BatchNorm, Conv2d, ConvConfig, Linear},
};
use mm_data::{ImageProcessor, ImageProcessorConfig};

config! {
    /// transformers' `EfficientNetConfig`; `lite` and `squeeze_expansion_ratio = 0` make the Lite kind.
    EfficientNetConfig {
        num_channels: i64 = 3,
        width_coefficient: f64 = 2.0,
        depth_coefficient: f64 = 3.1,
        depth_divisor: i64 = 8,
        kernel_sizes: Vec<i64> = vec![3, 3, 5, 3, 5, 5, 3],
        in_channels: Vec<i64> = vec![32, 16, 24, 40, 80, 112, 192],
        out_channels: Vec<i64> = vec![16, 24, 40, 80, 112, 192, 320],
        depthwise_padding: Vec<i64> = Vec::new(),
        strides: Vec<i64> = vec![1, 2, 2, 2, 1, 2, 1],
        num_block_repeats: Vec<i64> = vec![1, 2, 2, 3, 3, 4, 1],
        expand_ratios: Vec<i64> = vec![1, 6, 6, 6, 6, 6, 6],
        squeeze_expansion_ratio: f64 = 0.25,
        hidden_act: Activation = Activation::Silu,
        hidden_dim: i64 = 2560,
        pooling_type: String = "mean".into(),
        batch_norm_eps: f64 = 1e-3,
        lite: bool = false,
    }
}

impl EfficientNetConfig {
    fn channels(&self, base: i64) -> i64 {
        let (divisor, wanted) = (self.depth_divisor.max(1), base as f64 * self.width_coefficient);
        let rounded = ((wanted + divisor as f64 / 2.0) as i64 / divisor * divisor).max(divisor);
        // Never more than a tenth less than what was asked for.
        if (rounded as f64) < 0.9 * wanted { rounded + divisor } else { rounded }
    }

    fn check(&self) -> mm_core::Result<()> {
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

/// What lies around a picture before a convolution.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Pad {
    /// TensorFlow's SAME: the output is ⌈size / stride⌉, an odd zero goes to the right and below.
    Same,
    /// So many zeros before and after.
    Around(i64, i64),
}

/// A block: an inverted bottleneck.
struct BlockPlan {
    /// Where its parameters are.
    place: String,
    input: i64,
    wide: i64,
    output: i64,
    kernel: i64,
    stride: i64,
    /// Width of squeeze-and-excitation; 0 for none.
    squeeze: i64,
    pad: Pad,
    skip: bool,
}

/// Everything that tells one network from another.
struct Plan {
    channels: i64,
    stem: i64,
    stem_pad: Pad,
    blocks: Vec<BlockPlan>,
    head: i64,
    epsilon: f64,
    activation: Activation,
    pool: Pooling,
}

/// A convolution with its normalisation folded in.
struct ConvNorm {
    conv: Conv2d,
    /// Zeros that the convolution does not bring itself.
    same: Option<(i64, i64)>,
    uneven: Option<(i64, i64)>,
    activation: Activation,
}

impl ConvNorm {
    fn new(
        scope: &Scope<'_>,
        names: (&str, &str),
        plan: &Plan,
        mut sizes: ConvConfig,
        pad: Pad,
        activation: Activation,
    ) -> mm_core::Result<Self> {
        let (kernel, stride) = (sizes.kernel_size, sizes.stride);
        let (mut same, mut uneven) = (None, None);
        match pad {
            // What needs no look at the picture's size.
            Pad::Same if stride == 1 && kernel % 2 == 1 => sizes.padding = kernel / 2,
            Pad::Same => same = Some((kernel, stride)),
            Pad::Around(before, after) if before == after => sizes.padding = before,
            Pad::Around(before, after) => uneven = Some((before, after)),
        }
        let norm = BatchNorm::new(&scope.pp(names.1), sizes.out_channels, plan.epsilon, 0.01)?;
        Ok(Self { conv: Conv2d::with_folded_batch_norm(&scope.pp(names.0), sizes, &norm)?, same, uneven, activation })
    }

    fn forward(&self, x: &Tensor, residual: Option<Tensor>) -> mm_core::Result<Tensor> {
        let mut x = x.clone();
        if let Some((before, after)) = self.uneven {
            x = x.pad(&[before, after, before, after], 0.0)?;
        }
        if let Some((kernel, stride)) = self.same {
            let need = |size: i64| (((size + stride - 1) / stride - 1) * stride + kernel - size).max(0);
            let (height, width) = (need(x.size(2)?), need(x.size(3)?));
            x = x.pad(&[width / 2, width - width / 2, height / 2, height - height / 2], 0.0)?;
        }
        self.conv.forward_fused(&x, self.activation, residual)
    }
}

struct Block {
    expand: Option<ConvNorm>,
    depthwise: ConvNorm,
    squeeze: Option<(Conv2d, Conv2d, Activation)>,
    project: ConvNorm,
    skip: bool,
}

fn plain(input: i64, output: i64, bias: bool) -> ConvConfig {
    ConvConfig { in_channels: input, out_channels: output, kernel_size: 1, stride: 1, padding: 0, groups: 1, bias }
}

impl Block {
    fn new(scope: &Scope<'_>, plan: &Plan, b: &BlockPlan) -> mm_core::Result<Self> {
        let (act, none) = (plan.activation, Pad::Around(0, 0));
        let squeeze = (b.squeeze > 0)
            .then(|| -> mm_core::Result<_> {
                let reduce = Conv2d::new(&scope.pp("_se_reduce"), plain(b.wide, b.squeeze, true))?;
                Ok((reduce, Conv2d::new(&scope.pp("_se_expand"), plain(b.squeeze, b.wide, true))?, act))
            })
            .transpose()?;
        let norm = |names, sizes, pad, act| ConvNorm::new(scope, names, plan, sizes, pad, act);
        let expand = (b.wide != b.input)
            .then(|| norm(("_expand_conv", "_bn0"), plain(b.input, b.wide, false), none, act))
            .transpose()?;
        let deep =
            ConvConfig { kernel_size: b.kernel, stride: b.stride, groups: b.wide, ..plain(b.wide, b.wide, false) };
        Ok(Self {
            expand,
            depthwise: norm(("_depthwise_conv", "_bn1"), deep, b.pad, act)?,
            squeeze,
            project: norm(("_project_conv", "_bn2"), plain(b.wide, b.output, false), none, Activation::Identity)?,
            skip: b.skip,
        })
    }

    fn forward(&self, input: &Tensor) -> mm_core::Result<Tensor> {
        let mut x = match &self.expand {
            Some(expand) => expand.forward(input, None)?, // [batch, wide, height, width]
            None => input.clone(),
        };
        x = self.depthwise.forward(&x, None)?;
        if let Some((reduce, expand, act)) = &self.squeeze {
            let pooled = x.mean_dim(&[2, 3], true)?; // [batch, wide, 1, 1]
            let gate = expand.forward_fused(&reduce.forward_fused(&pooled, *act, None)?, Activation::Sigmoid, None)?;
            x = x.mul(&gate)?;
        }
        self.project.forward(&x, self.skip.then(|| input.clone()))
    }
}

/// Pixels `[batch, 3, height, width]` → features `[batch, places, channels]`, and ImageNet's logits where there is a classifier.
struct EfficientNet {
    stem: ConvNorm,
    blocks: Vec<Block>,
    head: ConvNorm,
    classifier: Option<Linear>,
    pool: Pooling,
    width: i64,
}

impl EfficientNet {
    /// The network, named as the `efficientnet` packages for `PyTorch` name it.
    fn new(b: &ModelBuilder<'_>, plan: &Plan) -> Result<Self> {
        let (scope, act) = (&b.scope, plan.activation);
        let stem = ConvConfig { kernel_size: 3, stride: 2, ..plain(plan.channels, plan.stem, false) };
        let stem = ConvNorm::new(scope, ("_conv_stem", "_bn0"), plan, stem, plan.stem_pad, act)?;
        let blocks = plan.blocks.iter().map(|p| Block::new(&scope.pp(&p.place), plan, p));
        let blocks = blocks.collect::<mm_core::Result<Vec<_>>>()?;
        let last = plan.blocks.last().map_or(plan.stem, |p| p.output);
        let none = Pad::Around(0, 0);
        let head = ConvNorm::new(scope, ("_conv_head", "_bn1"), plan, plain(last, plan.head, false), none, act)?;
        let fc = scope.pp("_fc");
        let classifier = fc.has("weight").then(|| Linear::new(&fc, plan.head, b.num_labels(), true)).transpose()?;
        Ok(Self { stem, blocks, head, classifier, pool: plan.pool, width: plan.head })
    }
}

impl Encoder for EfficientNet {
    fn encode(&self, input: &Input, _train: bool) -> mm_core::Result<Features> {
        let mut x = self.stem.forward(&input.values, None)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Features::new(self.head.forward(&x, None)?.flatten(2, 3)?.transpose(1, 2)?, None)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        Ok(self.encode_and_embed(input, train)?.1)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> mm_core::Result<(Features, Tensor)> {
        let features = self.encode(input, train)?;
        let vectors = features.pool(self.pool)?;
        Ok((features, vectors))
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl Network for EfficientNet {
    fn classifier(&self) -> Option<&Linear> {
        self.classifier.as_ref()
    }
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "efficientnet",
        weight_map: |c, _| names(c),
        build: |b| build(b, &plan(b)?, preprocessing(b)?),
    },
    Family { model_type: "timm/efficientnet", weight_map: |c, _| timm_names(c), build: timm },
];

/// The first word that transformers' checkpoints have, under a head or bare; the packages' have none of it.
fn theirs(checkpoint: &Checkpoint) -> Option<&'static str> {
    let start = prefix(checkpoint, "embeddings.convolution.weight", &["efficientnet.", ""]);
    checkpoint.shape(&format!("{start}embeddings.convolution.weight")).map(|_| start)
}

fn names(checkpoint: &Checkpoint) -> WeightMap {
    let Some(start) = theirs(checkpoint) else { return WeightMap::default() };
    let at = |name: &str| format!("{start}{name}");
    WeightMap::new(&[
        ("^_fc.", "classifier."),
        ("^_conv_stem.", &at("embeddings.convolution.")),
        ("^_bn0.", &at("embeddings.batchnorm.")),
        ("^_conv_head.", &at("encoder.top_conv.")),
        ("^_bn1.", &at("encoder.top_bn.")),
        ("^_blocks.", &at("encoder.blocks.")),
        ("._expand_conv.", ".expansion.expand_conv."),
        ("._bn0.", ".expansion.expand_bn."),
        ("._depthwise_conv.", ".depthwise_conv.depthwise_conv."),
        ("._bn1.", ".depthwise_conv.depthwise_norm."),
        ("._se_", ".squeeze_excite."),
        ("._project_conv.", ".projection.project_conv."),
        ("._bn2.", ".projection.project_bn."),
    ])
}

fn plan(b: &ModelBuilder<'_>) -> Result<Plan> {
    let c: EfficientNetConfig = b.parse()?;
    c.check()?;
    let transformers = theirs(b.checkpoint).is_some();
    let fixed = |base: i64| if c.lite { base } else { c.channels(base) };
    let mut blocks = Vec::new();
    let stages = c.kernel_sizes.len();
    for stage in 0..stages {
        let mut input = if c.lite && stage == 0 { 32 } else { c.channels(c.in_channels[stage]) };
        let (output, base, kernel) =
            (c.channels(c.out_channels[stage]), c.num_block_repeats[stage], c.kernel_sizes[stage]);
        let unscaled = c.lite && (stage == 0 || stage == stages - 1);
        let repeats = if unscaled { base } else { (c.depth_coefficient * base as f64).ceil() as i64 };
        for repeat in 0..repeats {
            let stride = if repeat == 0 { c.strides[stage] } else { 1 };
            let squeeze = (input as f64 * c.squeeze_expansion_ratio) as i64;
            let half = kernel / 2;
            let adjusted = !c.depthwise_padding.contains(&(blocks.len() as i64));
            let (pad, skip) = if transformers {
                // One zero fewer above and to the left, unless the config lists the block; never a skip into a stage's first.
                let before = if stride == 2 && adjusted { half - 1 } else { half };
                (Pad::Around(before, half), stride == 1 && repeat > 0)
            } else {
                (Pad::Same, stride == 1 && input == output)
            };
            blocks.push(BlockPlan {
                place: format!("_blocks.{}", blocks.len()),
                input,
                wide: input * c.expand_ratios[stage],
                output,
                kernel,
                stride,
                squeeze: if c.squeeze_expansion_ratio > 0.0 { squeeze.max(1) } else { 0 },
                pad,
                skip,
            });
            input = output;
        }
    }
    let pool = match c.pooling_type.as_str() {
        "mean" => Pooling::Mean,
        "max" => Pooling::Max,
        other => return Err(b.config_error(format!("pooling_type: found `{other}`, wanted mean or max"))),
    };
    Ok(Plan {
        channels: c.num_channels,
        stem: fixed(32),
        stem_pad: if transformers { Pad::Around(0, 1) } else { Pad::Same },
        blocks,
        // transformers' config has the width as it is, the packages' before it is scaled.
        head: if transformers { c.hidden_dim } else { fixed(c.hidden_dim) },
        epsilon: c.batch_norm_eps,
        activation: c.hidden_act,
        pool,
    })
}

/// timm's blocks, `blocks.STAGE.NUMBER`, in order.
fn timm_blocks(checkpoint: &Checkpoint) -> Vec<(usize, String)> {
    let has = |name: String| checkpoint.shape(&name).is_some();
    let stage = |s: usize| {
        let place = move |n: usize| format!("blocks.{s}.{n}");
        (0..1000).map(move |n| (s, place(n)))
    };
    let there = |(_, place): &(usize, String)| has(format!("{place}.conv_dw.weight"));
    (0..100)
        .take_while(|s| has(format!("blocks.{s}.0.conv_dw.weight")))
        .flat_map(|s| stage(s).take_while(there))
        .collect()
}

fn timm_names(checkpoint: &Checkpoint) -> WeightMap {
    let mut names = WeightMap::new(&[
        ("^_fc.", "classifier."),
        ("^_conv_stem.", "conv_stem."),
        ("^_bn0.", "bn1."),
        ("^_conv_head.", "conv_head."),
        ("^_bn1.", "bn2."),
        ("._se_", ".se.conv_"),
        ("._depthwise_conv.", ".conv_dw."),
    ]);
    for (_, place) in timm_blocks(checkpoint) {
        // Blocks that widen nothing have a normalisation and a convolution fewer, and number the rest from one.
        let inverted = checkpoint.shape(&format!("{place}.conv_pwl.weight")).is_some();
        let rules: &[(&str, &str)] = if inverted {
            &[
                ("._expand_conv.", ".conv_pw."),
                ("._project_conv.", ".conv_pwl."),
                ("._bn2.", ".bn3."),
                ("._bn1.", ".bn2."),
                ("._bn0.", ".bn1."),
            ]
        } else {
            &[("._project_conv.", ".conv_pw."), ("._bn1.", ".bn1."), ("._bn2.", ".bn2.")]
        };
        for (from, to) in rules {
            names = names.and_within(&format!("{place}."), from, to);
        }
    }
    names
}

/// Steps of the stages, which no shape tells.
const STRIDES: [i64; 7] = [1, 2, 2, 2, 1, 2, 1];

/// timm's folders: every size but the steps of the stages is in the tensors' shapes.
fn timm(b: &ModelBuilder<'_>) -> Result<Model> {
    let c = b.checkpoint;
    let name = b.config["architecture"].as_str().unwrap_or_default();
    let shape = |name: &str| {
        c.shape(name).map(<[i64]>::to_vec).ok_or_else(|| b.config_error(format!("the weights lack {name}")))
    };
    let plain = name.strip_prefix("tf_");
    let tensorflow = plain.is_some();
    let kind = plain.unwrap_or(name).strip_prefix("efficientnet_").unwrap_or_default();
    let places = timm_blocks(c);
    if !(kind.starts_with('b') || kind.starts_with("lite")) || places.last().map(|p| p.0) != Some(STRIDES.len() - 1) {
        return Err(b.config_error(format!(
            "architecture `{name}` is not read; of timm's EfficientNets mm reads efficientnet_b*, efficientnet_lite* and their tf_ kinds"
        )));
    }
    let (stem, head) = (shape("conv_stem.weight")?, shape("conv_head.weight")?);
    let mut input = stem[0];
    let mut blocks = Vec::new();
    for (number, (stage, place)) in places.iter().enumerate() {
        let deep = shape(&format!("{place}.conv_dw.weight"))?;
        let last = if c.shape(&format!("{place}.conv_pwl.weight")).is_some() { "conv_pwl" } else { "conv_pw" };
        let output = shape(&format!("{place}.{last}.weight"))?[0];
        let first = number == 0 || places[number - 1].0 != *stage;
        let (kernel, stride) = (deep[2], if first { STRIDES[*stage] } else { 1 });
        let pad = if tensorflow { Pad::Same } else { Pad::Around(kernel / 2, kernel / 2) };
        blocks.push(BlockPlan {
            place: place.clone(),
            input,
            wide: deep[0],
            output,
            kernel,
            stride,
            squeeze: c.shape(&format!("{place}.se.conv_reduce.weight")).map_or(0, |s| s[0]),
            pad,
            skip: stride == 1 && input == output,
        });
        input = output;
    }
    let plan = Plan {
        channels: stem[1],
        stem: stem[0],
        stem_pad: if tensorflow { Pad::Same } else { Pad::Around(1, 1) },
        blocks,
        head: head[0],
        epsilon: if tensorflow { 1e-3 } else { 1e-5 },
        activation: if kind.starts_with("lite") { Activation::Relu6 } else { Activation::Silu },
        pool: Pooling::Mean,
    };
    build(b, &plan, timm_preprocessing(b)?)
}

fn build(b: &ModelBuilder<'_>, plan: &Plan, pixels: ImageProcessorConfig) -> Result<Model> {
    Ok(Tower::new(ImageProcessor::new(pixels), EfficientNet::new(b, plan)?).into())
}
