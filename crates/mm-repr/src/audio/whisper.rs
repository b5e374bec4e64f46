//! Whisper's encoder (Radford 2022): two convolutions over a log-mel spectrogram, then pre-norm blocks.

use super::{SequenceHead, SpectrogramProcessor};
use crate::{
    Result,
    family::{Family, Model, ModelBuilder, Network, Tower, WeightMap, config, prefix},
};
use mm_core::{
    Checkpoint, Encoder, Features, Init, Input, Modality, Module, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Conv1d, ConvConfig, ForwardArgs, MlpConfig, Transformer,
        TransformerConfig,
    },
};

config! {
    /// The encoder's part of transformers' `WhisperConfig`.
    WhisperConfig {
        num_mel_bins: i64 = 80,
        d_model: i64 = 384,
        encoder_layers: i64 = 4,
        encoder_attention_heads: i64 = 6,
        encoder_ffn_dim: i64 = 1536,
        max_source_positions: i64 = 1500,
        activation_function: Activation = Activation::Gelu,
    }
}

/// Whisper's encoder.
pub struct Whisper {
    convolutions: [Conv1d; 2],
    positions: Tensor,
    blocks: Transformer,
    head: Option<SequenceHead>,
    width: i64,
}

impl Whisper {
    /// `[batch, bands, frames]` → what goes into the first block, `[batch, frames / 2, width]`.
    fn start(&self, input: &Input) -> mm_core::Result<Tensor> {
        let mut x = input.values.clone();
        for convolution in &self.convolutions {
            x = convolution.forward(&x, false)?.gelu()?;
        }
        let x = x.transpose(1, 2)?;
        if x.size(1)? != self.positions.size(0)? {
            let wanted = format!("[batch, bands, {}]", 2 * self.positions.size(0)?);
            return Err(mm_core::Error::shape("spectrogram", &input.values.shape(), wanted));
        }
        x.add(&self.positions)
    }
}

impl Encoder for Whisper {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        Features::new(self.blocks.forward(&self.start(input)?, ForwardArgs { train, ..ForwardArgs::default() })?, None)
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::AUDIO
    }
}

impl Network for Whisper {
    fn logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        self.head.as_ref().map(|h| h.logits(&self.blocks, &self.start(input)?, None)).transpose()
    }
}

/// The family of this file.
pub(crate) const FAMILY: Family = Family { model_type: "whisper", weight_map: |c, _| names(c), build };

/// The encoder's names.
pub fn names(checkpoint: &Checkpoint) -> WeightMap {
    let start = prefix(checkpoint, "conv1.weight", &["model.encoder.", "encoder."]);
    WeightMap::new(&[
        ("encoder.final_layer_norm.", "encoder.layer_norm."),
        (".layer_norm1.", ".self_attn_layer_norm."),
        (".layer_norm2.", ".final_layer_norm."),
        (".mlp.fc", ".fc"),
        ("^encoder.", start),
    ])
}

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    Ok(Tower::new(SpectrogramProcessor::whisper(b)?, encoder(b)?).into())
}

/// The encoder under `encoder` of the scope.
pub fn encoder(b: &ModelBuilder<'_>) -> Result<Whisper> {
    let c: WhisperConfig = b.parse()?;
    let (scope, width) = (b.scope.pp("encoder"), c.d_model);
    let convolution = |name: &str, input: i64, stride: i64| {
        let sizes = ConvConfig {
            in_channels: input,
            out_channels: width,
            kernel_size: 3,
            stride,
            padding: 1,
            groups: 1,
            bias: true,
        };
        Conv1d::new(&scope.pp(name), sizes)
    };
    let block = BlockConfig {
        norm_first: true,
        ..BlockConfig::new(
            AttentionConfig { key_bias: false, ..AttentionConfig::new(width, c.encoder_attention_heads) },
            MlpConfig::new(c.encoder_ffn_dim, c.activation_function),
        )
    };
    Ok(Whisper {
        convolutions: [convolution("conv1", c.num_mel_bins, 1)?, convolution("conv2", width, 2)?],
        positions: scope.pp("embed_positions").param("weight", &[c.max_source_positions, width], Init::Normal(0.02))?,
        blocks: b.transformer(&scope, TransformerConfig { num_layers: c.encoder_layers, block, final_norm: true })?,
        head: SequenceHead::new(b, width, c.encoder_layers, true)?,
        width,
    })
}
