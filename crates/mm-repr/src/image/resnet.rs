//! ResNet v1 and v1.5 with basic or bottleneck blocks, under the names of transformers and of timm and torchvision.
//! Batch normalizations are folded into the convolutions.
//!
//! *Deep Residual Learning for Image Recognition* (He et al., 2015), <https://arxiv.org/abs/1512.03385>.

use super::preprocess::{preprocessing, timm_preprocessing};
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

/// A convolution with its batch normalization folded in.
fn conv_norm(scope: &Scope<'_>, [input, output, kernel, stride]: [i64; 4]) -> Result<Conv2d> {
    let config = ConvConfig {
        in_channels: input,
        out_channels: output,
        kernel_size: kernel,
        stride,
        padding: kernel / 2,
        groups: 1,
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
    fn new(scope: &Scope<'_>, c: &ResNetConfig, [input, output, stride]: [i64; 3]) -> Result<Self> {
        let (first, second) = if c.downsample_in_bottleneck { (stride, 1) } else { (1, stride) };
        let sizes: Vec<[i64; 4]> = if c.layer_type == "bottleneck" {
            let inner = output / 4;
            vec![[input, inner, 1, first], [inner, inner, 3, second], [inner, output, 1, 1]]
        } else {
            vec![[input, output, 3, stride], [output, output, 3, 1]]
        };
        let convs = sizes.into_iter().enumerate().map(|(i, s)| conv_norm(&scope.pp("layer").pp(i), s));
        let convs = convs.collect::<Result<Vec<_>>>()?;
        let shortcut = (input != output || stride != 1)
            .then(|| conv_norm(&scope.pp("shortcut"), [input, output, 1, stride]))
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
    fn new(b: &ModelBuilder<'_>, c: &ResNetConfig) -> Result<Self> {
        let scope = b.scope.pp("base");
        if c.depths.is_empty() || c.depths.len() != c.hidden_sizes.len() {
            return Err(b.config_error("depths, hidden_sizes: expected lists of the same length, not empty"));
        }
        let stem = conv_norm(&scope.pp("embedder.embedder"), [c.num_channels, c.embedding_size, 7, 2])?;
        let (mut blocks, mut input) = (Vec::new(), c.embedding_size);
        for (stage, (output, depth)) in c.hidden_sizes.iter().copied().zip(&c.depths).enumerate() {
            for index in 0..*depth {
                let block = scope.pp("encoder.stages").pp(stage).pp("layers").pp(index);
                let stride = if index == 0 && (stage > 0 || c.downsample_in_first_stage) { 2 } else { 1 };
                blocks.push(Block::new(&block, c, [input, output, stride])?);
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
        build: |b| build(b, &b.parse()?, preprocessing(b)?),
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

/// timm's and torchvision's checkpoints, whose sizes are read from the shapes of the weights.
fn build_timm(b: &ModelBuilder<'_>) -> Result<Model> {
    let shape = |name: &str| b.checkpoint.shape(name);
    let stem =
        shape("conv1.weight").ok_or_else(|| b.config_error("the weights lack conv1.weight: unsupported stem"))?;
    let bottleneck = shape("layer1.0.conv3.weight").is_some();
    let last = if bottleneck { "conv3" } else { "conv2" };
    let (mut hidden_sizes, mut depths) = (Vec::new(), Vec::new());
    for stage in 1.. {
        let Some(output) = shape(&format!("layer{stage}.0.{last}.weight")).map(|s| s[0]) else { break };
        let blocks = (0..1000).take_while(|i| shape(&format!("layer{stage}.{i}.conv1.weight")).is_some());
        hidden_sizes.push(output);
        depths.push(blocks.count() as i64);
    }
    let config = ResNetConfig {
        num_channels: stem[1],
        embedding_size: stem[0],
        hidden_sizes,
        depths,
        layer_type: if bottleneck { "bottleneck" } else { "basic" }.into(),
        ..ResNetConfig::default()
    };
    build(b, &config, timm_preprocessing(b)?)
}

fn build(b: &ModelBuilder<'_>, config: &ResNetConfig, processor: ImageProcessorConfig) -> Result<Model> {
    Ok(Tower::new(ImageProcessor::new(processor), ResNet::new(b, config)?).into())
}
