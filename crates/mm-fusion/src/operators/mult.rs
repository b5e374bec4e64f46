//! Multimodal transformer with pairwise crossmodal attention.

use super::layers::{add_positions, encoder};
use crate::{
    Error, FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result,
    operator::check_positive,
};
use mm_core::{
    DType, Features, Module, Pooling, Scope, Tensor,
    nn::{
        Activation, Attention, AttentionArgs, AttentionConfig, Conv1d, ConvConfig, ForwardArgs, Linear, Mask, Mlp,
        MlpConfig, Norm, NormConfig, Transformer,
    },
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "mult",
    description: "crossmodal transformers on unaligned sequences (MulT, Tsai et al. 2019)",
    takes_sequences: true,
    build,
};

#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MultConfig {
    /// Blocks of each transformer.
    num_layers: i64,
    num_heads: i64,
    /// Kernel size of the temporal convolutions, in positions; odd.
    kernel_size: i64,
    /// Dropout probability in the blocks.
    dropout: f64,
    /// Whether one vector is returned, or one per position (sequences of equal length).
    pooled: bool,
}

impl Default for MultConfig {
    fn default() -> Self {
        Self { num_layers: 2, num_heads: 4, kernel_size: 3, dropout: 0.1, pooled: true }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let config: MultConfig = context.options()?;
    context.equal_input_dims(SPEC.kind)?;
    check_positive("num_layers", config.num_layers)?;
    if config.kernel_size < 1 || config.kernel_size % 2 == 0 {
        return Err(Error::config("fusion.operator.kernel_size", config.kernel_size, "an odd number"));
    }
    let (scope, count, dim) = (&context.scope, context.input_dims.len(), context.dim);
    let (mut convolutions, mut targets) = (Vec::new(), Vec::new());
    for target in 0..count {
        let convolution = ConvConfig::same(dim, dim, config.kernel_size);
        convolutions.push(Conv1d::new(&scope.pp("convolutions").pp(target), convolution)?);
        targets.push(Target::new(scope, config, target, count, dim)?);
    }
    let total = dim * targets.iter().map(|t| t.sources.len() as i64).sum::<i64>();
    Ok(Box::new(Mult {
        convolutions,
        targets,
        fc1: Linear::new(&scope.pp("fc1"), total, total, true)?,
        fc2: Linear::new(&scope.pp("fc2"), total, total, true)?,
        out_proj: Linear::new(&scope.pp("out_proj"), total, dim, true)?,
        config,
        dim,
    }))
}

/// A pre-norm block: the target's positions attend to the source's, then a feed-forward network.
struct CrossmodalBlock {
    norm: Norm,
    attention: Attention,
    norm_mlp: Norm,
    mlp: Mlp,
    dropout: f64,
}

impl CrossmodalBlock {
    fn new(scope: &Scope<'_>, config: MultConfig, dim: i64) -> Result<Self> {
        let MultConfig { num_heads, dropout, .. } = config;
        let attention = AttentionConfig { dropout, ..AttentionConfig::new(dim, num_heads) };
        Ok(Self {
            norm: Norm::new(&scope.pp("layer_norm1"), dim, NormConfig::default())?,
            attention: Attention::new(&scope.pp("cross_attn"), &attention)?,
            norm_mlp: Norm::new(&scope.pp("layer_norm2"), dim, NormConfig::default())?,
            mlp: Mlp::new(&scope.pp("mlp"), dim, &MlpConfig::new(4 * dim, Activation::Relu))?,
            dropout,
        })
    }

    fn forward(&self, x: &Tensor, source: &Tensor, mask: Option<&Mask>, train: bool) -> Result<Tensor> {
        let context = self.norm.forward(source, train)?;
        let args = AttentionArgs { context: Some(&context), mask, train, ..AttentionArgs::default() };
        let attended = self.attention.forward(&self.norm.forward(x, train)?, args)?.values;
        let x = x.add(&attended.dropout(self.dropout, train)?)?;
        let y = self.mlp.forward(&self.norm_mlp.forward(&x, train)?, train)?;
        Ok(x.add(&y.dropout(self.dropout, train)?)?)
    }
}

/// Crossmodal attention from one source modality.
struct Source {
    index: usize,
    blocks: Vec<CrossmodalBlock>,
    norm: Norm,
}

/// The crossmodal attention of one target modality.
struct Target {
    sources: Vec<Source>,
    encoder: Transformer,
}

impl Target {
    fn new(scope: &Scope<'_>, config: MultConfig, target: usize, count: usize, dim: i64) -> Result<Self> {
        let MultConfig { num_layers, num_heads, dropout, .. } = config;
        let mut sources = Vec::new();
        // A single modality is its own source.
        for index in (0..count).filter(|source| *source != target || count == 1) {
            let scope = scope.pp("crossmodal").pp(format!("{target}_from_{index}"));
            let blocks = (0..num_layers).map(|layer| CrossmodalBlock::new(&scope.pp("layers").pp(layer), config, dim));
            let blocks = blocks.collect::<Result<Vec<_>>>()?;
            let norm = Norm::new(&scope.pp("norm"), dim, NormConfig::default())?;
            sources.push(Source { index, blocks, norm });
        }
        let encoder_dim = dim * sources.len() as i64;
        let encoder = encoder(&scope.pp("memory").pp(target), encoder_dim, num_layers, num_heads, dropout)?;
        Ok(Self { sources, encoder })
    }
}

/// *Multimodal Transformer for Unaligned Multimodal Language Sequences* (Tsai et al., 2019,
/// <https://arxiv.org/abs/1906.00295>).
struct Mult {
    convolutions: Vec<Conv1d>,
    targets: Vec<Target>,
    fc1: Linear,
    fc2: Linear,
    out_proj: Linear,
    config: MultConfig,
    dim: i64,
}

impl Mult {
    /// Convolved sequences with positions, `[rows, length, dim]` each.
    fn sequences(&self, inputs: &[ModalityInput], train: bool) -> Result<Vec<Tensor>> {
        let embed = |(input, convolution): (&ModalityInput, &Conv1d)| -> Result<Tensor> {
            let x = convolution.forward(&input.values.transpose(1, 2)?, train)?.transpose(1, 2)?;
            let x = add_positions(&x.mul_scalar((self.dim as f64).sqrt())?)?;
            let valid = input.position_mask()?.unsqueeze(-1)?.to_dtype(DType::F32)?;
            Ok(x.mul(&valid)?.dropout(self.config.dropout, train)?)
        };
        inputs.iter().zip(&self.convolutions).map(embed).collect()
    }

    /// Crossmodal attention of target `index` to all sources, encoded, `[rows, length, sources · dim]`.
    fn receive(&self, index: usize, sequences: &[Tensor], inputs: &[ModalityInput], train: bool) -> Result<Tensor> {
        let target = &self.targets[index];
        let mut received = Vec::new();
        for source in &target.sources {
            let mask = inputs[source.index].mask.clone().map(Mask::Padding);
            let mut x = sequences[index].clone();
            for block in &source.blocks {
                x = block.forward(&x, &sequences[source.index], mask.as_ref(), train)?;
            }
            // A missing source contributes nothing.
            let present = inputs[source.index].present_column()?.unsqueeze(2)?;
            received.push(source.norm.forward(&x, train)?.mul(&present)?);
        }
        let x = Tensor::cat(&received.iter().collect::<Vec<_>>(), 2)?;
        let mask = inputs[index].mask.clone().map(Mask::Padding);
        let args = ForwardArgs { mask: mask.as_ref(), train, ..ForwardArgs::default() };
        Ok(target.encoder.forward(&x, args)?)
    }
}

impl FusionOperator for Mult {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let pooled = self.config.pooled;
        if !pooled && inputs.iter().any(|p| p.values.shape() != inputs[0].values.shape()) {
            let found = inputs.iter().map(|p| format!("{:?}", p.values.shape())).collect::<Vec<_>>().join(", ");
            return Err(Error::config("mult with pooled = false", found, "sequences of equal length"));
        }
        let sequences = self.sequences(inputs, train)?;
        let mut outputs = Vec::new();
        for (index, input) in inputs.iter().enumerate() {
            let x = self.receive(index, &sequences, inputs, train)?;
            outputs.push(if pooled {
                Features::new(x, input.mask.clone())?.pool(Pooling::Last)?.mul(&input.present_column()?)?
            } else {
                x.mul(&input.position_mask()?.unsqueeze(-1)?.to_dtype(DType::F32)?)?
            });
        }
        let x = Tensor::cat(&outputs.iter().collect::<Vec<_>>(), -1)?;
        let hidden = self.fc1.forward(&x, train)?.relu()?.dropout(self.config.dropout, train)?;
        let x = x.add(&self.fc2.forward(&hidden, train)?)?;
        let values = self.out_proj.forward(&x, train)?;
        if pooled {
            return Ok(OperatorOutput::new(values));
        }
        let mut mask = inputs[0].position_mask()?;
        for input in &inputs[1..] {
            mask = mask.logical_or(&input.position_mask()?)?;
        }
        Ok(OperatorOutput { mask: Some(mask), ..OperatorOutput::new(values) })
    }
}
