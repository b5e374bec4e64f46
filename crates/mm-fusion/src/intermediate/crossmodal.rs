//! The multimodal transformer (MulT, Tsai 2019): each modality's sequence is enriched from every other by crossmodal attention, so that
//! sequences need not be aligned; temporal convolutions before, a transformer on what each received after.

use crate::{
    Error, Result,
    inputs::Part,
    intermediate::{encoder, one_width, with_positions},
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    DType, Features, Module, Pooling, Scope, Tensor,
    nn::{
        Activation, Attention, AttentionArgs, AttentionConfig, Conv1d, ConvConfig, ForwardArgs, Linear, Mask, Mlp,
        MlpConfig, Norm, NormConfig, Transformer,
    },
};

/// One crossmodal block: the target's positions look at the source's, then a network; both with the norm before.
struct CrossBlock {
    norm: Norm,
    attention: Attention,
    norm_mlp: Norm,
    mlp: Mlp,
}

impl CrossBlock {
    fn new(scope: &Scope<'_>, width: i64, heads: i64, dropout: f64) -> Result<Self> {
        let mlp = MlpConfig::new(4 * width, Activation::Relu);
        let attention = AttentionConfig { dropout, ..AttentionConfig::new(width, heads) };
        Ok(Self {
            norm: Norm::new(&scope.pp("layer_norm1"), width, NormConfig::default())?,
            attention: Attention::new(&scope.pp("cross_attn"), &attention)?,
            norm_mlp: Norm::new(&scope.pp("layer_norm2"), width, NormConfig::default())?,
            mlp: Mlp::new(&scope.pp("mlp"), width, &mlp)?,
        })
    }

    fn forward(&self, x: &Tensor, source: &Tensor, mask: Option<&Mask>, dropout: f64, train: bool) -> Result<Tensor> {
        let context = self.norm.forward(source, train)?;
        let attend = AttentionArgs { context: Some(&context), mask, train, ..AttentionArgs::default() };
        let seen = self.attention.forward(&self.norm.forward(x, train)?, attend)?.values;
        let x = x.add(&seen.dropout(dropout, train)?)?;
        let y = self.mlp.forward(&self.norm_mlp.forward(&x, train)?, train)?;
        Ok(x.add(&y.dropout(dropout, train)?)?)
    }
}

struct Target {
    /// From each other modality, in order.
    sources: Vec<(usize, Vec<CrossBlock>, Norm)>,
    memory: Transformer,
}

pub(crate) struct Mult {
    convolutions: Vec<Conv1d>,
    targets: Vec<Target>,
    first: Linear,
    second: Linear,
    last: Linear,
    dropout: f64,
    pooled: bool,
    width: i64,
}

impl Mult {
    pub(crate) fn new(
        scope: &Scope<'_>,
        sizes: &Sizes<'_>,
        [layers, heads, kernel]: [i64; 3],
        dropout: f64,
        pooled: bool,
    ) -> Result<Self> {
        one_width(sizes, "mult")?;
        if layers < 1 {
            return Err(Error::config("fusion.operator.layers", layers, "at least 1"));
        }
        let (count, width) = (sizes.parts.len(), sizes.width);
        let (mut convolutions, mut targets) = (Vec::new(), Vec::new());
        for target in 0..count {
            convolutions
                .push(Conv1d::new(&scope.pp("convolutions").pp(target), ConvConfig::same(width, width, kernel))?);
            let mut sources = Vec::new();
            for source in (0..count).filter(|s| *s != target || count == 1) {
                let place = scope.pp("crossmodal").pp(format!("{target}_from_{source}"));
                let blocks = (0..layers).map(|l| CrossBlock::new(&place.pp("layers").pp(l), width, heads, dropout));
                let norm = Norm::new(&place.pp("norm"), width, NormConfig::default())?;
                sources.push((source, blocks.collect::<Result<Vec<_>>>()?, norm));
            }
            let wide = width * sources.len() as i64;
            let memory = encoder(&scope.pp("memory").pp(target), wide, layers, heads, dropout)?;
            targets.push(Target { sources, memory });
        }
        let all = width * targets.iter().map(|t| t.sources.len() as i64).sum::<i64>();
        Ok(Self {
            convolutions,
            targets,
            first: Linear::new(&scope.pp("fc1"), all, all, true)?,
            second: Linear::new(&scope.pp("fc2"), all, all, true)?,
            last: Linear::new(&scope.pp("out_proj"), all, width, true)?,
            dropout,
            pooled,
            width,
        })
    }
}

impl Body for Mult {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let mut sequences = Vec::new();
        for (part, convolution) in parts.iter().zip(&self.convolutions) {
            let x = convolution.forward(&part.values.transpose(1, 2)?, train)?.transpose(1, 2)?; // [rows, length, width]
            let x = with_positions(&x.mul_scalar((self.width as f64).sqrt())?)?;
            let there = part.positions()?.unsqueeze(-1)?.to_dtype(DType::F32)?;
            sequences.push(x.mul(&there)?.dropout(self.dropout, train)?);
        }
        let mut all = Vec::new();
        for (number, target) in self.targets.iter().enumerate() {
            let mut received = Vec::new();
            for (source, blocks, norm) in &target.sources {
                let mask = parts[*source].mask.clone().map(Mask::Padding);
                let mut x = sequences[number].clone();
                for block in blocks {
                    x = block.forward(&x, &sequences[*source], mask.as_ref(), self.dropout, train)?;
                }
                // A source that a row lacks has said nothing.
                received.push(norm.forward(&x, train)?.mul(&parts[*source].flag()?.unsqueeze(2)?)?);
            }
            let x = Tensor::cat(&received.iter().collect::<Vec<_>>(), 2)?; // [rows, length, sources · width]
            let mask = parts[number].mask.clone().map(Mask::Padding);
            let x = target.memory.forward(&x, ForwardArgs { mask: mask.as_ref(), train, ..ForwardArgs::default() })?;
            all.push(if self.pooled {
                let last = Features::new(x, parts[number].mask.clone())?.pool(Pooling::Last)?;
                last.mul(&parts[number].flag()?)?
            } else {
                x.mul(&parts[number].positions()?.unsqueeze(-1)?.to_dtype(DType::F32)?)?
            });
        }
        if !self.pooled && parts.iter().any(|p| p.values.shape() != parts[0].values.shape()) {
            let found = parts.iter().map(|p| format!("{:?}", p.values.shape())).collect::<Vec<_>>().join(", ");
            return Err(Error::config("mult with a vector for each position", found, "sequences of one length"));
        }
        let x = Tensor::cat(&all.iter().collect::<Vec<_>>(), -1)?;
        let y = self.first.forward(&x, train)?.relu()?.dropout(self.dropout, train)?;
        let x = x.add(&self.second.forward(&y, train)?)?;
        let values = self.last.forward(&x, train)?;
        if self.pooled {
            return Ok(Combined::of(values));
        }
        let mut mask = parts[0].positions()?;
        for part in &parts[1..] {
            mask = mask.logical_or(&part.positions()?)?;
        }
        Ok(Combined { mask: Some(mask), ..Combined::of(values) })
    }
}
