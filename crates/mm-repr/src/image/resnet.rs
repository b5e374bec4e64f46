//! ResNet v1 and v1.5 with basic or bottleneck blocks, Wide ResNet and ResNeXt, under the names of transformers and of
//! timm and torchvision. Batch normalizations are folded into the convolutions.
//!
//! *Deep Residual Learning for Image Recognition* (He et al., 2015), <https://arxiv.org/abs/1512.03385>; *Wide Residual
//! Networks* (Zagoruyko, Komodakis, 2016), <https://arxiv.org/abs/1605.07146>; *Aggregated Residual Transformations for
//! Deep Neural Networks* (Xie et al., 2016), <https://arxiv.org/abs/1611.05431>.

use super::{
    preprocess::{preprocessing, timm_preprocessing},
    timm::{architecture, check_model_args, shape, unsupported},
};
use crate::{
    Result, checkpoint_config,
    family::{Family, Model, ModelBuilder, PretrainedEncoder, Tower, WeightMap, detect_prefix},
};
use mm_core::{
    Encoder, Features, Input, Modality, Module, Scope,
    nn::{Activation, BatchNorm, Conv2d, ConvConfig, Linear},
};
use mm_data::{ImageProcessor, ImageProcessorConfig};

checkpoint_config! {
    /// transformers' `ResNetConfig`.
    ResNetConfig {
        num_channels: i64 = 3,
        embedding_size: i64 = 64,
        hidden_sizes: Vec<i64> = vec![256, 512, 1024, 2048],
        depths: Vec<i64> = vec![3, 4, 6, 3],
        layer_type: String = "bottleneck".into(),
        hidden_act: Activation = Activation::Relu,
        downsample_in_first_stage: bool = false,
        downsample_in_bottleneck: bool = false,
    }
}

/// Channels of the convolutions inside the blocks of a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Width {
    /// Channels between the pointwise convolutions of a bottleneck.
    inner: i64,
    /// Groups of the convolution between them.
    groups: i64,
}

/// A convolution with its batch normalization folded in.
fn conv_norm(scope: &Scope<'_>, [input, output, kernel, stride]: [i64; 4], groups: i64) -> Result<Conv2d> {
    let config = ConvConfig {
        in_channels: input,
        out_channels: output,
        kernel_size: kernel,
        stride,
        padding: kernel / 2,
        groups,
        bias: false,
    };
    let norm = BatchNorm::new(&scope.pp("normalization"), output, 1e-5, 0.1)?;
    Ok(Conv2d::with_folded_batch_norm(&scope.pp("convolution"), config, &norm)?)
}

/// A residual block.
struct Block {
    convs: Vec<Conv2d>,
    shortcut: Option<Conv2d>,
}

impl Block {
    fn new(scope: &Scope<'_>, c: &ResNetConfig, width: Width, [input, output, stride]: [i64; 3]) -> Result<Self> {
        let (first, second) = if c.downsample_in_bottleneck { (stride, 1) } else { (1, stride) };
        let Width { inner, groups } = width;
        let sizes: Vec<([i64; 4], i64)> = if c.layer_type == "bottleneck" {
            vec![([input, inner, 1, first], 1), ([inner, inner, 3, second], groups), ([inner, output, 1, 1], 1)]
        } else {
            vec![([input, output, 3, stride], 1), ([output, output, 3, 1], 1)]
        };
        let convs = sizes.into_iter().enumerate().map(|(i, (s, g))| conv_norm(&scope.pp("layer").pp(i), s, g));
        let convs = convs.collect::<Result<Vec<_>>>()?;
        let shortcut = (input != output || stride != 1)
            .then(|| conv_norm(&scope.pp("shortcut"), [input, output, 1, stride], 1))
            .transpose()?;
        Ok(Self { convs, shortcut })
    }
}

/// Pixels `[batch, 3, height, width]` → features `[batch, positions, channels]`.
struct ResNet {
    stem: Conv2d,
    blocks: Vec<Block>,
    classifier: Option<Linear>,
    /// Activation of the stem and after each block; inside blocks it is always ReLU, as in transformers.
    activation: Activation,
    channels: i64,
}

impl ResNet {
    /// `widths` are those of the stages.
    fn new(b: &ModelBuilder<'_>, c: &ResNetConfig, widths: &[Width]) -> Result<Self> {
        let scope = b.scope.pp("base");
        if c.depths.is_empty() || c.depths.len() != c.hidden_sizes.len() || widths.len() != c.depths.len() {
            return Err(b.config_error("depths, hidden_sizes: expected lists of the same length, not empty"));
        }
        let stem = conv_norm(&scope.pp("embedder.embedder"), [c.num_channels, c.embedding_size, 7, 2], 1)?;
        let (mut blocks, mut input) = (Vec::new(), c.embedding_size);
        for (stage, (output, depth)) in c.hidden_sizes.iter().copied().zip(&c.depths).enumerate() {
            for index in 0..*depth {
                let block = scope.pp("encoder.stages").pp(stage).pp("layers").pp(index);
                let stride = if index == 0 && (stage > 0 || c.downsample_in_first_stage) { 2 } else { 1 };
                blocks.push(Block::new(&block, c, widths[stage], [input, output, stride])?);
                input = output;
            }
        }
        let head = b.scope.pp("classifier.1");
        let classifier = head.has("weight").then(|| Linear::new(&head, input, b.num_labels(), true)).transpose()?;
        Ok(Self { stem, blocks, classifier, activation: c.hidden_act, channels: input })
    }
}

impl Encoder for ResNet {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let mut x =
            self.stem.forward_fused(&input.values, self.activation, None)?.max_pool2d([3; 2], [2; 2], [1; 2], false)?;
        for block in &self.blocks {
            let shortcut = block.shortcut.as_ref().map(|s| s.forward(&x, train)).transpose()?;
            let Some((last, others)) = block.convs.split_last() else { continue };
            let mut y = x.clone();
            for conv in others {
                y = conv.forward_fused(&y, Activation::Relu, None)?;
            }
            // The block's input is not needed afterwards, so its memory may hold the sum.
            x = last.forward_fused(&y, self.activation, Some(shortcut.unwrap_or(x)))?;
        }
        Features::new(x.flatten(2, 3)?.transpose(1, 2)?, None)
    }

    fn dim(&self) -> i64 {
        self.channels
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl PretrainedEncoder for ResNet {
    fn classifier(&self) -> Option<&Linear> {
        self.classifier.as_ref()
    }
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "resnet",
        weight_map: |c, _| {
            let prefix = detect_prefix(c, "embedder.embedder.convolution.weight", &["resnet.", ""]);
            WeightMap::new(&[("^base.", prefix)])
        },
        build: build_transformers,
    },
    Family { model_type: "timm/resnet", weight_map: |_, _| timm_weight_map(), build: build_timm },
];

fn timm_weight_map() -> WeightMap {
    let mut rules = vec![
        ("base.embedder.embedder.convolution.".to_owned(), "conv1.".to_owned()),
        ("base.embedder.embedder.normalization.".to_owned(), "bn1.".to_owned()),
        ("classifier.1.".to_owned(), "fc.".to_owned()),
        (".shortcut.convolution.".to_owned(), ".downsample.0.".to_owned()),
        (".shortcut.normalization.".to_owned(), ".downsample.1.".to_owned()),
        (".layers.".to_owned(), ".".to_owned()),
    ];
    for i in 0..4 {
        rules.push((format!("base.encoder.stages.{i}."), format!("layer{}.", i + 1)));
        rules.push((format!(".layer.{i}.convolution."), format!(".conv{}.", i + 1)));
        rules.push((format!(".layer.{i}.normalization."), format!(".bn{}.", i + 1)));
    }
    let rules: Vec<(&str, &str)> = rules.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    WeightMap::new(&rules)
}

fn build_transformers(b: &ModelBuilder<'_>) -> Result<Model> {
    let config: ResNetConfig = b.parse()?;
    if !["basic", "bottleneck"].contains(&config.layer_type.as_str()) {
        return Err(b.config_error(format!("layer_type: found `{}`, expected basic or bottleneck", config.layer_type)));
    }
    let widths: Vec<Width> = config.hidden_sizes.iter().map(|n| Width { inner: n / 4, groups: 1 }).collect();
    build(b, &config, &widths, preprocessing(b)?)
}

/// Whether a name is `resnetN`, `wide_resnetN_2` or `resnextN_GxWd`. The other names with these beginnings have other
/// stems, gates, or pooling before strides, of which some leave no trace in the weights.
fn is_supported(name: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if let Some(rest) = name.strip_prefix("wide_resnet") {
        return rest.strip_suffix("_2").is_some_and(is_number);
    }
    if let Some(rest) = name.strip_prefix("resnext") {
        let parts =
            rest.split_once('_').and_then(|(depth, rest)| Some((depth, rest.strip_suffix('d')?.split_once('x')?)));
        return parts.is_some_and(|(depth, (groups, width))| [depth, groups, width].into_iter().all(is_number));
    }
    name.strip_prefix("resnet").is_some_and(is_number)
}

/// timm's and torchvision's checkpoints, whose sizes are read from the shapes of the weights.
fn build_timm(b: &ModelBuilder<'_>) -> Result<Model> {
    if !is_supported(architecture(b)) {
        return Err(unsupported(b, "resnetN, wide_resnetN_2 or resnextN_GxWd (N, G, W: numbers)"));
    }
    check_model_args(b, &["layers", "channels", "base_width", "cardinality", "stem_width"])?;
    let pool = &b.config["global_pool"];
    if pool.as_str().is_some_and(|pool| !["avg", ""].contains(&pool)) {
        return Err(b.config_error(format!("global_pool: found {pool}, expected avg")));
    }
    let has = |name: &str| b.checkpoint.shape(name).is_some();
    let [embedding_size, num_channels, kernel, _] = shape(b, "conv1.weight")?;
    if kernel != 7 {
        return Err(b.config_error(format!("conv1.weight: found a kernel of {kernel}, expected 7")));
    }
    let bottleneck = has("layer1.0.conv3.weight");
    let last = if bottleneck { "conv3" } else { "conv2" };
    let (mut hidden_sizes, mut depths, mut widths) = (Vec::new(), Vec::new(), Vec::new());
    for stage in (1..).take_while(|stage| has(&format!("layer{stage}.0.conv1.weight"))) {
        let [output, ..]: [i64; 4] = shape(b, &format!("layer{stage}.0.{last}.weight"))?;
        let [inner, per_group, ..]: [i64; 4] = shape(b, &format!("layer{stage}.0.conv2.weight"))?;
        let blocks = (0..1000).take_while(|i| has(&format!("layer{stage}.{i}.conv1.weight")));
        hidden_sizes.push(output);
        depths.push(blocks.count() as i64);
        widths.push(Width { inner, groups: inner / per_group.max(1) });
    }
    let config = ResNetConfig {
        num_channels,
        embedding_size,
        hidden_sizes,
        depths,
        layer_type: if bottleneck { "bottleneck" } else { "basic" }.into(),
        ..ResNetConfig::default()
    };
    build(b, &config, &widths, timm_preprocessing(b)?)
}

fn build(
    b: &ModelBuilder<'_>,
    config: &ResNetConfig,
    widths: &[Width],
    processor: ImageProcessorConfig,
) -> Result<Model> {
    Ok(Tower::new(ImageProcessor::new(processor), ResNet::new(b, config, widths)?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_that_differ_without_a_trace_in_the_weights_are_not_resnets() {
        for name in
            ["resnet18", "resnet152", "wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_64x4d"]
        {
            assert!(is_supported(name), "{name}");
        }
        for name in [
            "resnetblur50",
            "resnetaa50",
            "resnet50d",
            "resnet50_gn",
            "resnet26t",
            "resnet51q",
            "resnetrs50",
            "resnetv2_50",
            "resnext50d_32x4d",
            "resnext26ts",
            "wide_resnet50_3",
        ] {
            assert!(!is_supported(name), "{name}");
        }
    }
}
