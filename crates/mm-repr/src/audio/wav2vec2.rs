//! Wav2Vec2 (Baevski 2020) and `HuBERT` (Hsu 2021): convolutions over the samples themselves, positions by a wide convolution, blocks.
//! Padding changes nothing: rows of a batch give what they give alone.

use super::{SequenceHead, WaveProcessor};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Network, Tower, WeightMap, config, prefix},
};
use mm_core::{
    Encoder, Features, Init, Input, Modality, Module, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BatchNorm, BlockConfig, Conv1d, ConvConfig, ForwardArgs, GroupNorm, Linear, Mask,
        MlpConfig, Norm, NormConfig, Transformer, TransformerConfig,
    },
};

config! {
    /// transformers' `Wav2Vec2Config` and `HubertConfig`.
    WaveConfig {
        hidden_size: i64 = 768,
        num_hidden_layers: i64 = 12,
        num_attention_heads: i64 = 12,
        intermediate_size: i64 = 3072,
        hidden_act: Activation = Activation::Gelu,
        layer_norm_eps: f64 = 1e-5,
        feat_extract_norm: String = "group".into(),
        feat_extract_activation: Activation = Activation::Gelu,
        feat_proj_layer_norm: bool = true,
        conv_dim: Vec<i64> = vec![512; 7],
        conv_stride: Vec<i64> = vec![5, 2, 2, 2, 2, 2, 2],
        conv_kernel: Vec<i64> = vec![10, 3, 3, 3, 3, 2, 2],
        conv_bias: bool = false,
        num_conv_pos_embeddings: i64 = 128,
        num_conv_pos_embedding_groups: i64 = 16,
        conv_pos_batch_norm: bool = false,
        do_stable_layer_norm: bool = false,
        add_adapter: bool = false,
        adapter_attn_dim: Option<i64> = None,
    }
}

enum ChannelNorm {
    None,
    /// Over the positions of each channel.
    Group(GroupNorm),
    /// Over the channels of each position.
    Layer(Norm),
}

struct Step {
    convolution: Conv1d,
    norm: ChannelNorm,
    kernel: i64,
    stride: i64,
}

struct Wave {
    steps: Vec<Step>,
    activation: Activation,
    /// Before the projection to the blocks' width.
    norm: Option<Norm>,
    projection: Linear,
    positions: Positions,
    /// After the positions are added, where the blocks normalise after each part.
    first_norm: Option<Norm>,
    blocks: Transformer,
    head: Option<SequenceHead>,
    width: i64,
}

/// The wide convolution that stands for positions.
struct Positions {
    weight: Tensor,
    bias: Tensor,
    kernel: i64,
    groups: i64,
    /// Scale and shift of a batch normalisation before it (some `HuBERT`s).
    scale: Option<(Tensor, Tensor)>,
}

impl Positions {
    fn new(scope: &Scope<'_>, c: &WaveConfig) -> Result<Self> {
        let (width, kernel, groups) = (c.hidden_size, c.num_conv_pos_embeddings, c.num_conv_pos_embedding_groups);
        let conv = scope.pp("conv");
        let shape = [width, width / groups.max(1), kernel];
        let (weight, scale) = if c.conv_pos_batch_norm {
            let norm = BatchNorm::new(&scope.pp("batch_norm"), width, 1e-5, 0.1)?;
            (conv.param("weight", &shape, Init::Normal(0.02))?, Some(norm.scale_and_shift()?))
        } else {
            // Weight normalisation (Salimans 2016): a length for each place of the window, and a direction.
            let old = conv.has("weight_g");
            let names = if old { ["weight_g", "weight_v"] } else { ["original0", "original1"] };
            let place = if old { conv.clone() } else { conv.pp("parametrizations.weight") };
            let length = place.param(names[0], &[1, 1, kernel], Init::Ones)?;
            let direction = place.param(names[1], &shape, Init::Normal(0.02))?;
            let norm = direction.mul(&direction)?.sum_dim(&[0, 1], true)?.sqrt()?;
            (direction.mul(&length.div(&norm)?)?, None)
        };
        let bias = conv.param("bias", &[width], Init::Zeros)?;
        Ok(Self { weight, bias, kernel, groups, scale })
    }

    /// `[batch, length, width]` → the same, before the activation; what `there` `[batch, length, 1]` hides counts as nothing.
    fn forward(&self, x: &Tensor, there: Option<&Tensor>) -> mm_core::Result<Tensor> {
        let mut x = x.clone();
        if let Some((scale, shift)) = &self.scale {
            x = x.mul(scale)?.add(shift)?;
            if let Some(there) = there {
                x = x.mul(there)?;
            }
        }
        let length = x.size(1)?;
        let y = x.transpose(1, 2)?.conv1d(&self.weight, Some(&self.bias), 1, self.kernel / 2, 1, self.groups)?;
        // An even window gives one position too many.
        y.narrow(2, 0, length)?.transpose(1, 2)
    }
}

impl Wave {
    /// Samples `[batch, samples]` → what goes into the first block `[batch, length, width]`, and which positions count.
    fn start(&self, input: &Input, train: bool) -> mm_core::Result<(Tensor, Option<Tensor>)> {
        let mut x = input.values.unsqueeze(1)?; // [batch, channels, length]
        let mask = input.mask.as_ref().map(|m| m.to_dtype(mm_core::DType::I64)?.sum_dim(&[1], false)?.to_vec::<i64>());
        let mut lengths = mask.transpose()?;
        for step in &self.steps {
            x = step.convolution.forward(&x, train)?;
            if let Some(lengths) = &mut lengths {
                lengths.iter_mut().for_each(|n| *n = ((*n - step.kernel) / step.stride + 1).max(1));
            }
            x = match (&step.norm, &lengths) {
                (ChannelNorm::None, _) => x,
                (ChannelNorm::Layer(norm), _) => norm.forward(&x.transpose(1, 2)?, train)?.transpose(1, 2)?,
                (ChannelNorm::Group(norm), None) => norm.forward(&x, train)?,
                (ChannelNorm::Group(norm), Some(lengths)) => {
                    // Each row by its own positions alone, as if there were no padding.
                    let whole = x.size(2)?;
                    let row = |(i, n): (usize, &i64)| {
                        let own = x.narrow(0, i as i64, 1)?.narrow(2, 0, *n)?;
                        norm.forward(&own, train)?.pad(&[0, whole - n], 0.0)
                    };
                    let rows = lengths.iter().enumerate().map(row).collect::<mm_core::Result<Vec<_>>>()?;
                    Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?
                }
            };
            x = self.activation.apply(&x)?;
        }
        let mut x = x.transpose(1, 2)?; // [batch, length, channels]
        if let Some(norm) = &self.norm {
            x = norm.forward(&x, train)?;
        }
        x = self.projection.forward(&x, train)?;
        let mask = match lengths {
            None => None,
            Some(lengths) => {
                let places = Tensor::arange(0, x.size(1)?, x.device())?;
                Some(places.lt(&Tensor::from_slice(&lengths)?.to_device(x.device())?.unsqueeze(1)?)?)
            }
        };
        let there = mask.as_ref().map(|m| m.unsqueeze(-1)?.to_dtype(x.dtype()?)).transpose()?;
        if let Some(there) = &there {
            x = x.mul(there)?;
        }
        x = x.add(&self.activation.apply(&self.positions.forward(&x, there.as_ref())?)?)?;
        if let Some(norm) = &self.first_norm {
            x = norm.forward(&x, train)?;
        }
        Ok((x, mask))
    }
}

impl Encoder for Wave {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let (x, mask) = self.start(input, train)?;
        let attended = mask.clone().map(Mask::Padding);
        Features::new(
            self.blocks.forward(&x, ForwardArgs { mask: attended.as_ref(), train, ..ForwardArgs::default() })?,
            mask,
        )
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::AUDIO
    }
}

impl Network for Wave {
    fn logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        let Some(head) = &self.head else { return Ok(None) };
        let (x, mask) = self.start(input, false)?;
        head.logits(&self.blocks, &x, mask.as_ref()).map(Some)
    }
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family { model_type: "wav2vec2", weight_map: |c, _| names(c, "wav2vec2."), build },
    Family { model_type: "hubert", weight_map: |c, _| names(c, "hubert."), build },
];

fn names(checkpoint: &mm_core::Checkpoint, below: &str) -> WeightMap {
    let start = prefix(checkpoint, "feature_projection.projection.weight", &[below, ""]);
    WeightMap::new(&[
        ("encoder.final_layer_norm.", "encoder.layer_norm."),
        (".self_attn.", ".attention."),
        (".layer_norm1.", ".layer_norm."),
        (".layer_norm2.", ".final_layer_norm."),
        (".mlp.fc1.", ".feed_forward.intermediate_dense."),
        (".mlp.fc2.", ".feed_forward.output_dense."),
        ("^base.", start),
    ])
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let c: WaveConfig = b.parse()?;
    if c.add_adapter || c.adapter_attn_dim.is_some() {
        return Err(b.config_error("add_adapter, adapter_attn_dim: adapters are not read"));
    }
    let count = c.conv_dim.len();
    if count == 0 || c.conv_kernel.len() != count || c.conv_stride.len() != count {
        return Err(b.config_error("conv_dim, conv_kernel, conv_stride: wanted as many of one as of the others"));
    }
    if c.conv_kernel.iter().chain(&c.conv_stride).chain([&c.num_conv_pos_embedding_groups]).any(|n| *n < 1) {
        return Err(b.config_error("conv_kernel, conv_stride, num_conv_pos_embedding_groups: wanted positive numbers"));
    }
    let grouped = match c.feat_extract_norm.as_str() {
        "group" => true,
        "layer" => false,
        other => return Err(b.config_error(format!("feat_extract_norm: found `{other}`, wanted group or layer"))),
    };
    let scope = b.scope.pp("base");
    let (mut steps, mut input) = (Vec::new(), 1);
    for (number, output) in c.conv_dim.iter().copied().enumerate() {
        let place = scope.pp("feature_extractor.conv_layers").pp(number);
        let (kernel, stride) = (c.conv_kernel[number], c.conv_stride[number]);
        let sizes = ConvConfig {
            in_channels: input,
            out_channels: output,
            kernel_size: kernel,
            stride,
            padding: 0,
            groups: 1,
            bias: c.conv_bias,
        };
        let norm = place.pp("layer_norm");
        let norm = match (grouped, number) {
            (true, 0) => ChannelNorm::Group(GroupNorm::new(&norm, output, output, 1e-5)?),
            (true, _) => ChannelNorm::None,
            (false, _) => ChannelNorm::Layer(Norm::new(&norm, output, NormConfig::default())?),
        };
        steps.push(Step { convolution: Conv1d::new(&place.pp("conv"), sizes)?, norm, kernel, stride });
        input = output;
    }
    // Fewest samples that give one position.
    let shortest = steps.iter().rev().fold(1, |n, s| (n - 1) * s.stride + s.kernel);
    let (width, encoder, into) = (c.hidden_size, scope.pp("encoder"), scope.pp("feature_projection"));
    let norm = NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() };
    let block = BlockConfig {
        norm,
        norm_first: c.do_stable_layer_norm,
        ..BlockConfig::new(
            AttentionConfig::new(width, c.num_attention_heads),
            MlpConfig::new(c.intermediate_size, c.hidden_act),
        )
    };
    let layers = c.num_hidden_layers;
    let network = Wave {
        steps,
        activation: c.feat_extract_activation,
        norm: c.feat_proj_layer_norm.then(|| Norm::new(&into.pp("layer_norm"), input, norm)).transpose()?,
        projection: Linear::new(&into.pp("projection"), input, width, true)?,
        positions: Positions::new(&encoder.pp("pos_conv_embed"), &c)?,
        first_norm: (!c.do_stable_layer_norm).then(|| Norm::new(&encoder.pp("layer_norm"), width, norm)).transpose()?,
        blocks: b.transformer(
            &encoder,
            TransformerConfig { num_layers: layers, block, final_norm: c.do_stable_layer_norm },
        )?,
        head: SequenceHead::new(b, width, layers, false)?,
        width,
    };
    Ok(Tower::new(WaveProcessor::new(b, shortest)?, network).into())
}
