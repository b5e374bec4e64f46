//! Wav2Vec 2.0 and HuBERT: convolutions on the waveform, positions by a wide convolution, transformer blocks. Padding
//! does not change the features of a row.
//!
//! *wav2vec 2.0: A Framework for Self-Supervised Learning of Speech Representations* (Baevski et al., 2020),
//! <https://arxiv.org/abs/2006.11477>; *HuBERT: Self-Supervised Speech Representation Learning by Masked Prediction of
//! Hidden Units* (Hsu et al., 2021), <https://arxiv.org/abs/2106.07447>.

use super::{sequence_classifier::SequenceClassifier, waveform::WaveformProcessor};
use crate::{
    Result, checkpoint_config,
    family::{Derived, Family, Model, ModelBuilder, PretrainedEncoder, Tower, WeightMap, detect_prefix},
};
use mm_core::{
    ConvArgs, DType, Encoder, Features, Init, Input, Modality, Module, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BatchNorm, BlockConfig, Conv1d, ConvConfig, ForwardArgs, GroupNorm, Linear, Mask,
        MlpConfig, Norm, NormConfig, Transformer, TransformerConfig,
    },
};

checkpoint_config! {
    /// transformers' `Wav2Vec2Config` and `HubertConfig`.
    Wav2Vec2Config {
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

impl Wav2Vec2Config {
    fn validate(&self, b: &ModelBuilder<'_>) -> Result<()> {
        if self.add_adapter || self.adapter_attn_dim.is_some() {
            return Err(b.config_error("add_adapter, adapter_attn_dim: adapters are not supported"));
        }
        let count = self.conv_dim.len();
        if count == 0 || self.conv_kernel.len() != count || self.conv_stride.len() != count {
            let reason = "conv_dim, conv_kernel, conv_stride: expected lists of the same length, not empty";
            return Err(b.config_error(reason));
        }
        let mut sizes = self.conv_kernel.iter().chain(&self.conv_stride).chain([&self.num_conv_pos_embedding_groups]);
        if sizes.any(|n| *n < 1) {
            let reason = "conv_kernel, conv_stride, num_conv_pos_embedding_groups: expected positive numbers";
            return Err(b.config_error(reason));
        }
        Ok(())
    }
}

enum ChannelNorm {
    None,
    /// Over the positions of each channel.
    Group(GroupNorm),
    /// Over the channels of each position.
    Layer(Norm),
}

struct ConvLayer {
    conv: Conv1d,
    norm: ChannelNorm,
    kernel: i64,
    stride: i64,
}

impl ConvLayer {
    /// Number of outputs for a number of inputs, at least one.
    fn output_length(&self, length: i64) -> i64 {
        ((length - self.kernel) / self.stride + 1).max(1)
    }

    /// `[batch, channels, length]` → the same with other sizes; `lengths` are each row's valid outputs. Group
    /// normalization is applied to these alone.
    fn forward(&self, x: &Tensor, lengths: Option<&[i64]>, train: bool) -> mm_core::Result<Tensor> {
        let x = self.conv.forward(x, train)?;
        match (&self.norm, lengths) {
            (ChannelNorm::None, _) => Ok(x),
            (ChannelNorm::Layer(norm), _) => norm.forward(&x.transpose(1, 2)?, train)?.transpose(1, 2),
            (ChannelNorm::Group(norm), None) => norm.forward(&x, train),
            (ChannelNorm::Group(norm), Some(lengths)) => {
                let padded = x.size(2)?;
                let row = |(i, length): (usize, &i64)| {
                    let valid = x.narrow(0, i as i64, 1)?.narrow(2, 0, *length)?;
                    norm.forward(&valid, train)?.pad(&[0, padded - length], 0.0)
                };
                let rows = lengths.iter().enumerate().map(row).collect::<mm_core::Result<Vec<_>>>()?;
                Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)
            }
        }
    }
}

/// The convolution that computes position embeddings.
struct PositionalConv {
    weight: PositionalWeight,
    bias: Tensor,
    kernel: i64,
    groups: i64,
}

/// The kernel of the positional convolution.
enum PositionalWeight {
    /// With a batch normalization before it (some HuBERT checkpoints), of which the running statistics are used.
    BatchNorm { weight: Tensor, norm: BatchNorm },
    /// Weight normalization (Salimans, Kingma, 2016): a magnitude for each kernel position, and a direction.
    Normalized { magnitude: Tensor, direction: Tensor, product: Derived },
}

impl PositionalConv {
    fn new(scope: &Scope<'_>, c: &Wav2Vec2Config) -> Result<Self> {
        let (dim, kernel, groups) = (c.hidden_size, c.num_conv_pos_embeddings, c.num_conv_pos_embedding_groups);
        let conv = scope.pp("conv");
        let shape = [dim, dim / groups.max(1), kernel];
        let weight = if c.conv_pos_batch_norm {
            let norm = BatchNorm::new(&scope.pp("batch_norm"), dim, 1e-5, 0.1)?;
            PositionalWeight::BatchNorm { weight: conv.param("weight", &shape, Init::Normal(0.02))?, norm }
        } else {
            let old_layout = conv.has("weight_g");
            let names = if old_layout { ["weight_g", "weight_v"] } else { ["original0", "original1"] };
            let weights = if old_layout { conv.clone() } else { conv.pp("parametrizations.weight") };
            let magnitude = weights.param(names[0], &[1, 1, kernel], Init::Ones)?;
            let direction = weights.param(names[1], &shape, Init::Normal(0.02))?;
            PositionalWeight::Normalized { magnitude, direction, product: Derived::default() }
        };
        let bias = conv.param("bias", &[dim], Init::Zeros)?;
        Ok(Self { weight, bias, kernel, groups })
    }

    /// `[batch, length, dim]` → the same, before the activation. `valid` `[batch, length, 1]` is 0 for padding.
    fn forward(&self, x: &Tensor, valid: Option<&Tensor>) -> mm_core::Result<Tensor> {
        let mut x = x.clone();
        let weight = match &self.weight {
            PositionalWeight::BatchNorm { weight, norm } => {
                let (scale, shift) = norm.scale_and_shift()?;
                x = x.mul(&scale)?.add(&shift)?;
                if let Some(valid) = valid {
                    x = x.mul(valid)?;
                }
                weight.clone()
            }
            PositionalWeight::Normalized { magnitude, direction, product } => {
                product.get(&[magnitude, direction], || {
                    let norm = direction.mul(direction)?.sum_dim(&[0, 1], true)?.sqrt()?;
                    direction.mul(&magnitude.div(&norm)?)
                })?
            }
        };
        let length = x.size(1)?;
        let args = ConvArgs { padding: [self.kernel / 2], groups: self.groups, ..ConvArgs::default() };
        let y = x.transpose(1, 2)?.conv1d(&weight, Some(&self.bias), args)?;
        // An even kernel gives one position too many.
        y.narrow(2, 0, length)?.transpose(1, 2)
    }
}

/// Samples `[batch, samples]` → features `[batch, length, dim]`.
struct Wav2Vec2 {
    conv_layers: Vec<ConvLayer>,
    activation: Activation,
    /// Before the projection.
    feature_norm: Option<Norm>,
    projection: Linear,
    positions: PositionalConv,
    /// After the positions are added, with post-norm blocks.
    pre_norm: Option<Norm>,
    blocks: Transformer,
    classifier: Option<SequenceClassifier>,
    dim: i64,
}

impl Wav2Vec2 {
    fn new(b: &ModelBuilder<'_>, c: &Wav2Vec2Config) -> Result<Self> {
        let scope = b.scope.pp("base");
        let (dim, encoder, projection) = (c.hidden_size, scope.pp("encoder"), scope.pp("feature_projection"));
        let conv_dim = c.conv_dim.last().copied().unwrap_or(1);
        let norm = NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() };
        let block = BlockConfig {
            norm,
            norm_first: c.do_stable_layer_norm,
            ..BlockConfig::post_norm(
                AttentionConfig::new(dim, c.num_attention_heads),
                MlpConfig::new(c.intermediate_size, c.hidden_act),
            )
        };
        let (layers, final_norm) = (c.num_hidden_layers, c.do_stable_layer_norm);
        let feature_norm =
            c.feat_proj_layer_norm.then(|| Norm::new(&projection.pp("layer_norm"), conv_dim, norm)).transpose()?;
        Ok(Self {
            conv_layers: conv_layers(b, &scope, c)?,
            activation: c.feat_extract_activation,
            feature_norm,
            projection: Linear::new(&projection.pp("projection"), conv_dim, dim, true)?,
            positions: PositionalConv::new(&encoder.pp("pos_conv_embed"), c)?,
            pre_norm: (!final_norm).then(|| Norm::new(&encoder.pp("layer_norm"), dim, norm)).transpose()?,
            blocks: b.transformer(&encoder, TransformerConfig::new(layers, block))?,
            classifier: SequenceClassifier::new(b, dim, layers, false)?,
            dim,
        })
    }

    /// Fewest samples that give one position.
    fn min_samples(&self) -> i64 {
        self.conv_layers.iter().rev().fold(1, |n, layer| (n - 1) * layer.stride + layer.kernel)
    }

    /// Samples `[batch, samples]` → the input of the first block `[batch, length, dim]`, and the mask of valid
    /// positions.
    fn embed_samples(&self, input: &Input, train: bool) -> mm_core::Result<(Tensor, Option<Tensor>)> {
        let mut x = input.values.unsqueeze(1)?; // [batch, channels, length]
        let lengths = input.mask.as_ref().map(|m| m.to_dtype(DType::I64)?.sum_dim(&[1], false)?.to_vec::<i64>());
        let mut lengths = lengths.transpose()?;
        for layer in &self.conv_layers {
            if let Some(lengths) = &mut lengths {
                lengths.iter_mut().for_each(|n| *n = layer.output_length(*n));
            }
            x = self.activation.apply(&layer.forward(&x, lengths.as_deref(), train)?)?;
        }
        let mut x = x.transpose(1, 2)?; // [batch, length, channels]
        if let Some(norm) = &self.feature_norm {
            x = norm.forward(&x, train)?;
        }
        x = self.projection.forward(&x, train)?;
        let to_mask = |lengths: Vec<i64>| {
            let positions = Tensor::arange(0, x.size(1)?, x.device())?;
            positions.lt(&Tensor::from_slice(&lengths)?.to_device(x.device())?.unsqueeze(1)?)
        };
        let mask = lengths.map(to_mask).transpose()?;
        let valid = mask.as_ref().map(|m| m.unsqueeze(-1)?.to_dtype(x.dtype()?)).transpose()?;
        if let Some(valid) = &valid {
            x = x.mul(valid)?;
        }
        x = x.add(&self.activation.apply(&self.positions.forward(&x, valid.as_ref())?)?)?;
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(&x, train)?;
        }
        Ok((x, mask))
    }
}

fn conv_layers(b: &ModelBuilder<'_>, scope: &Scope<'_>, c: &Wav2Vec2Config) -> Result<Vec<ConvLayer>> {
    let group_norm = match c.feat_extract_norm.as_str() {
        "group" => true,
        "layer" => false,
        other => return Err(b.config_error(format!("feat_extract_norm: found `{other}`, expected group or layer"))),
    };
    let (mut layers, mut input) = (Vec::new(), 1);
    for (index, output) in c.conv_dim.iter().copied().enumerate() {
        let layer = scope.pp("feature_extractor.conv_layers").pp(index);
        let (kernel, stride) = (c.conv_kernel[index], c.conv_stride[index]);
        let config = ConvConfig {
            in_channels: input,
            out_channels: output,
            kernel_size: kernel,
            stride,
            padding: 0,
            groups: 1,
            bias: c.conv_bias,
        };
        let norm = layer.pp("layer_norm");
        let norm = match (group_norm, index) {
            (true, 0) => ChannelNorm::Group(GroupNorm::new(&norm, output, output, 1e-5)?),
            (true, _) => ChannelNorm::None,
            (false, _) => ChannelNorm::Layer(Norm::new(&norm, output, NormConfig::default())?),
        };
        layers.push(ConvLayer { conv: Conv1d::new(&layer.pp("conv"), config)?, norm, kernel, stride });
        input = output;
    }
    Ok(layers)
}

impl Encoder for Wav2Vec2 {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let (x, mask) = self.embed_samples(input, train)?;
        let padding = mask.clone().map(Mask::Padding);
        Features::new(
            self.blocks.forward(&x, ForwardArgs { mask: padding.as_ref(), train, ..ForwardArgs::default() })?,
            mask,
        )
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn modality(&self) -> Modality {
        Modality::AUDIO
    }
}

impl PretrainedEncoder for Wav2Vec2 {
    fn has_classifier(&self) -> bool {
        self.classifier.is_some()
    }

    fn logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        let Some(classifier) = &self.classifier else { return Ok(None) };
        let (x, mask) = self.embed_samples(input, false)?;
        classifier.logits(&self.blocks, &x, mask.as_ref()).map(Some)
    }
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family { model_type: "wav2vec2", weight_map: |c, _| weight_map(c, "wav2vec2."), build },
    Family { model_type: "hubert", weight_map: |c, _| weight_map(c, "hubert."), build },
];

fn weight_map(checkpoint: &mm_core::Checkpoint, prefix: &str) -> WeightMap {
    let prefix = detect_prefix(checkpoint, "feature_projection.projection.weight", &[prefix, ""]);
    WeightMap::new(&[
        ("encoder.final_layer_norm.", "encoder.layer_norm."),
        (".self_attn.", ".attention."),
        (".layer_norm1.", ".layer_norm."),
        (".layer_norm2.", ".final_layer_norm."),
        (".mlp.fc1.", ".feed_forward.intermediate_dense."),
        (".mlp.fc2.", ".feed_forward.output_dense."),
        ("^base.", prefix),
    ])
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let config: Wav2Vec2Config = b.parse()?;
    config.validate(b)?;
    let network = Wav2Vec2::new(b, &config)?;
    Ok(Tower::new(WaveformProcessor::new(b, network.min_samples())?, network).into())
}
