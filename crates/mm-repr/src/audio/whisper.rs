//! Whisper's encoder: two convolutions on a log-mel spectrogram, then pre-norm transformer blocks.
//!
//! *Robust Speech Recognition via Large-Scale Weak Supervision* (Radford et al., 2022),
//! <https://arxiv.org/abs/2212.04356>.

use super::{sequence_classifier::SequenceClassifier, spectrogram::SpectrogramProcessor};
use crate::{
    Result, checkpoint_config,
    family::{Family, Model, ModelBuilder, PretrainedEncoder, Tower, WeightMap, detect_prefix},
};
use mm_core::{
    Checkpoint, Encoder, Features, Init, Input, Modality, Module, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, Conv1d, ConvConfig, ForwardArgs, MlpConfig, Transformer,
        TransformerConfig,
    },
};

checkpoint_config! {
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

/// Whisper's encoder: `[batch, bands, frames]` → `[batch, frames / 2, dim]`.
pub struct WhisperEncoder {
    convolutions: [Conv1d; 2],
    positions: Tensor,
    blocks: Transformer,
    classifier: Option<SequenceClassifier>,
    dim: i64,
}

impl WhisperEncoder {
    /// Builds the encoder under `encoder` of the builder's scope.
    pub fn new(b: &ModelBuilder<'_>) -> Result<Self> {
        let c: WhisperConfig = b.parse()?;
        let (scope, dim) = (b.scope.pp("encoder"), c.d_model);
        let convolution = |name: &str, input: i64, stride: i64| {
            let config = ConvConfig {
                in_channels: input,
                out_channels: dim,
                kernel_size: 3,
                stride,
                padding: 1,
                groups: 1,
                bias: true,
            };
            Conv1d::new(&scope.pp(name), config)
        };
        let attention = AttentionConfig { key_bias: false, ..AttentionConfig::new(dim, c.encoder_attention_heads) };
        let mlp = MlpConfig::new(c.encoder_ffn_dim, c.activation_function);
        let block = BlockConfig::pre_norm(attention, mlp);
        let positions = [c.max_source_positions, dim];
        Ok(Self {
            convolutions: [convolution("conv1", c.num_mel_bins, 1)?, convolution("conv2", dim, 2)?],
            positions: scope.pp("embed_positions").param("weight", &positions, Init::Normal(0.02))?,
            blocks: b.transformer(&scope, TransformerConfig::new(c.encoder_layers, block))?,
            classifier: SequenceClassifier::new(b, dim, c.encoder_layers, true)?,
            dim,
        })
    }

    /// The input of the first block, `[batch, frames / 2, dim]`.
    fn embed_frames(&self, input: &Input) -> mm_core::Result<Tensor> {
        let mut x = input.values.clone();
        for convolution in &self.convolutions {
            x = convolution.forward(&x, false)?.gelu()?;
        }
        let x = x.transpose(1, 2)?;
        if x.size(1)? != self.positions.size(0)? {
            let expected = format!("[batch, bands, {}]", 2 * self.positions.size(0)?);
            return Err(mm_core::Error::shape("spectrogram", &input.values.shape(), expected));
        }
        x.add(&self.positions)
    }
}

impl Encoder for WhisperEncoder {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        Features::new(
            self.blocks.forward(&self.embed_frames(input)?, ForwardArgs { train, ..ForwardArgs::default() })?,
            None,
        )
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn modality(&self) -> Modality {
        Modality::AUDIO
    }
}

impl PretrainedEncoder for WhisperEncoder {
    fn has_classifier(&self) -> bool {
        self.classifier.is_some()
    }

    fn logits(&self, input: &Input) -> mm_core::Result<Option<Tensor>> {
        let Some(classifier) = &self.classifier else { return Ok(None) };
        classifier.logits(&self.blocks, &self.embed_frames(input)?, None).map(Some)
    }
}

/// The family of this file.
pub(crate) const FAMILIES: &[Family] = &[Family {
    model_type: "whisper",
    weight_map: |c, _| whisper_weight_map(c),
    build: |b| Ok(Model::from(Tower::new(SpectrogramProcessor::whisper(b)?, WhisperEncoder::new(b)?))),
}];

/// Maps the encoder's parameters to transformers' names.
pub fn whisper_weight_map(checkpoint: &Checkpoint) -> WeightMap {
    let prefix = detect_prefix(checkpoint, "conv1.weight", &["model.encoder.", "encoder."]);
    WeightMap::new(&[
        ("encoder.final_layer_norm.", "encoder.layer_norm."),
        (".layer_norm1.", ".self_attn_layer_norm."),
        (".layer_norm2.", ".final_layer_norm."),
        (".mlp.fc", ".fc"),
        ("^encoder.", prefix),
    ])
}
