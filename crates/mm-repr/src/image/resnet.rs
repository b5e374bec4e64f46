//! ResNet (He 2015), v1 and v1.5, basic and bottleneck, under transformers' names and under timm's and torchvision's. Each convolution
//! has its normalisation folded in.

use super::{preprocessing, timm_preprocessing};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Network, Tower, WeightMap, config, prefix},
};
use mm_core::{
    Encoder, Features, Input, Modality, Module, Scope,
    nn::{Activation, BatchNorm, Conv2d, ConvConfig, Linear},
};
use mm_data::{ImageProcessor, ImageProcessorConfig};

config! {
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

/// A convolution with its normalisation folded in.
fn folded(scope: &Scope<'_>, [input, output, kernel, stride]: [i64; 4]) -> Result<Conv2d> {
    let sizes = ConvConfig {
        in_channels: input,
        out_channels: output,
        kernel_size: kernel,
        stride,
        padding: kernel / 2,
        groups: 1,
        bias: false,
    };
    let norm = BatchNorm::new(&scope.pp("normalization"), output, 1e-5, 0.1)?;
    Ok(Conv2d::with_folded_batch_norm(&scope.pp("convolution"), sizes, &norm)?)
}

struct Layer {
    convs: Vec<Conv2d>,
    shortcut: Option<Conv2d>,
}

/// Pixels `[batch, 3, height, width]` → features `[batch, places, channels]`.
struct ResNet {
    stem: Conv2d,
    layers: Vec<Layer>,
    classifier: Option<Linear>,
    /// Between the blocks; inside them stands a rectifier whatever the config says, as in the reference program.
    activation: Activation,
    width: i64,
}

impl ResNet {
    fn new(b: &ModelBuilder<'_>, c: &ResNetConfig) -> Result<Self> {
        let scope = b.scope.pp("base");
        let bottleneck = c.layer_type == "bottleneck";
        if c.depths.is_empty() || c.depths.len() != c.hidden_sizes.len() {
            return Err(b.config_error("depths, hidden_sizes: wanted as many of one as of the other"));
        }
        let stem = folded(&scope.pp("embedder.embedder"), [c.num_channels, c.embedding_size, 7, 2])?;
        let (mut layers, mut input) = (Vec::new(), c.embedding_size);
        for (stage, (output, depth)) in c.hidden_sizes.iter().copied().zip(&c.depths).enumerate() {
            for number in 0..*depth {
                let place = scope.pp("encoder.stages").pp(stage).pp("layers").pp(number);
                let stride = if number == 0 && (stage > 0 || c.downsample_in_first_stage) { 2 } else { 1 };
                let (first, second) = if c.downsample_in_bottleneck { (stride, 1) } else { (1, stride) };
                let sizes: Vec<[i64; 4]> = if bottleneck {
                    let inner = output / 4;
                    vec![[input, inner, 1, first], [inner, inner, 3, second], [inner, output, 1, 1]]
                } else {
                    vec![[input, output, 3, stride], [output, output, 3, 1]]
                };
                let convs = sizes.into_iter().enumerate().map(|(i, s)| folded(&place.pp("layer").pp(i), s));
                let convs = convs.collect::<Result<Vec<_>>>()?;
                let shortcut = (input != output || stride != 1)
                    .then(|| folded(&place.pp("shortcut"), [input, output, 1, stride]))
                    .transpose()?;
                layers.push(Layer { convs, shortcut });
                input = output;
            }
        }
        let head = b.scope.pp("classifier.1");
        let classifier = head.has("weight").then(|| Linear::new(&head, input, b.num_labels(), true)).transpose()?;
        Ok(Self { stem, layers, classifier, activation: c.hidden_act, width: input })
    }
}

impl Encoder for ResNet {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let mut x =
            self.stem.forward_fused(&input.values, self.activation, None)?.max_pool2d([3; 2], [2; 2], [1; 2], false)?;
        for layer in &self.layers {
            let residual = layer.shortcut.as_ref().map(|s| s.forward(&x, train)).transpose()?;
            let (last, before) =
                layer.convs.split_last().ok_or_else(|| mm_core::Error::Sample("an empty layer".into()))?;
            let mut y = x.clone();
            for conv in before {
                y = conv.forward_fused(&y, Activation::Relu, None)?;
            }
            // The layer's input is of no use after this: its memory takes the sum.
            x = last.forward_fused(&y, self.activation, Some(residual.unwrap_or(x)))?;
        }
        Features::new(x.flatten(2, 3)?.transpose(1, 2)?, None)
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl Network for ResNet {
    fn classifier(&self) -> Option<&Linear> {
        self.classifier.as_ref()
    }
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family {
        model_type: "resnet",
        weight_map: |c, _| {
            let start = prefix(c, "embedder.embedder.convolution.weight", &["resnet.", ""]);
            WeightMap::new(&[("^base.", start)])
        },
        build: |b| build(b, &b.parse()?, preprocessing(b)?),
    },
    Family { model_type: "timm/resnet", weight_map: |_, _| timm_names(), build: timm },
];

fn timm_names() -> WeightMap {
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

/// timm's and torchvision's folders: every size is in the tensors' shapes.
fn timm(b: &ModelBuilder<'_>) -> Result<Model> {
    let shape = |name: &str| b.checkpoint.shape(name);
    let stem = shape("conv1.weight")
        .ok_or_else(|| b.config_error("the weights lack conv1.weight: a stem that mm does not read"))?;
    let bottleneck = shape("layer1.0.conv3.weight").is_some();
    let last = if bottleneck { "conv3" } else { "conv2" };
    let (mut hidden_sizes, mut depths) = (Vec::new(), Vec::new());
    for stage in 1.. {
        let Some(output) = shape(&format!("layer{stage}.0.{last}.weight")).map(|s| s[0]) else { break };
        hidden_sizes.push(output);
        depths
            .push((0..1000).take_while(|i| shape(&format!("layer{stage}.{i}.conv1.weight")).is_some()).count() as i64);
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

fn build(b: &ModelBuilder<'_>, config: &ResNetConfig, pixels: ImageProcessorConfig) -> Result<Model> {
    Ok(Tower::new(ImageProcessor::new(pixels), ResNet::new(b, config)?).into())
}
