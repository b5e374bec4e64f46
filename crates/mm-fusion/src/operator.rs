//! Every operator behind one door: named by the `kind` of its settings, built over the same inputs, giving the same output.

use crate::{
    Error, Missing, Result,
    early::{Concat, Sequence, Stack},
    inputs::{InputSettings, Inputs, Part},
    intermediate as mid,
};
use mm_core::{FeatureSet, Features, FusionOperator, FusionOutput, Modality, Scope, Tensor, config};
use serde::{Deserialize, Serialize};

/// Settings of a fusion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FusionConfig {
    /// Which operator, and its own settings.
    pub operator: Operator,
    /// Width of the fused features, and of each modality's after its projection.
    pub width: i64,
    /// Rate of dropout on the projected features while training.
    pub dropout: f64,
    /// What stands in place of a modality that a row lacks.
    pub missing: Missing,
    /// Rate at which a modality that a row has is hidden while training; one always stays.
    pub modality_dropout: f64,
    /// Whether operators on vectors act on each position of sequences of one length instead of on their means.
    pub aligned: bool,
    /// Whether each modality goes through a linear layer, a normalisation and GELU first.
    pub project: bool,
}

impl Default for FusionConfig {
    fn default() -> Self {
        Self {
            operator: Operator::Concat { hidden: 0 },
            width: 128,
            dropout: 0.0,
            missing: Missing::Mask,
            modality_dropout: 0.0,
            aligned: false,
            project: true,
        }
    }
}

/// Which operator, by its `kind`, and its own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", deny_unknown_fields)]
pub enum Operator {
    /// All side by side, through one layer (or two).
    #[serde(rename = "concat")]
    Concat {
        /// Width of a layer between; none when 0.
        #[serde(default = "default::int_0")]
        hidden: i64,
    },
    /// A learned weight for each modality and dimension.
    #[serde(rename = "stack")]
    Stack {},
    /// One long sequence with modality embeddings, through a transformer.
    #[serde(rename = "sequence")]
    Sequence {
        /// Transformer blocks.
        #[serde(default = "default::int_2")]
        layers: i64,
        /// Heads of each.
        #[serde(default = "default::int_4")]
        heads: i64,
        /// Whether one vector comes out (a class token's), or the first modality's positions.
        #[serde(default = "default::yes")]
        pooled: bool,
    },
    /// Gated multimodal unit (Arevalo 2017).
    #[serde(rename = "gated")]
    Gated {},
    /// Multiplicative interactions, each modality bilinear with what came before (Jayakumar 2020).
    #[serde(rename = "multiplicative")]
    Multiplicative {},
    /// Tensor fusion network: the outer product of all (Zadeh 2017).
    #[serde(rename = "tensor")]
    Tensor {
        /// Width of each modality in the product.
        #[serde(default = "default::int_16")]
        part: i64,
        /// Width of the layer after it.
        #[serde(default = "default::int_128")]
        hidden: i64,
    },
    /// Low-rank multimodal fusion (Liu 2018).
    #[serde(rename = "low_rank")]
    LowRank {
        /// Rank of the weights.
        #[serde(default = "default::int_8")]
        rank: i64,
    },
    /// Multimodal low-rank bilinear pooling (Kim 2017).
    #[serde(rename = "mlb")]
    Mlb {},
    /// Multimodal factorised bilinear pooling (Yu 2017).
    #[serde(rename = "mfb")]
    Mfb {
        /// Products that are summed for each output.
        #[serde(default = "default::int_5")]
        factors: i64,
    },
    /// Multimodal Tucker fusion (Ben-younes 2017).
    #[serde(rename = "mutan")]
    Mutan {
        /// Rank of the core.
        #[serde(default = "default::int_5")]
        rank: i64,
    },
    /// The others scale and shift the main modality (FiLM, Perez 2018).
    #[serde(rename = "film")]
    Film {
        /// The main modality; text, or the first, when absent.
        #[serde(default)]
        main: Option<String>,
    },
    /// Squeeze and excitation across modalities (MMTM, Joze 2020).
    #[serde(rename = "mmtm")]
    Excitation {
        /// The squeezed width is all widths over this.
        #[serde(default = "default::int_4")]
        reduction: i64,
    },
    /// Multimodal adaptation gate: the others displace the main modality (Rahman 2020).
    #[serde(rename = "mag")]
    Adaptation {
        /// The main modality; text, or the first, when absent.
        #[serde(default)]
        main: Option<String>,
        /// Longest displacement, as a part of the main vector's length.
        #[serde(default = "default::rate_0_5")]
        beta: f64,
    },
    /// Modality-invariant and -specific representations (MISA, Hazarika 2020).
    #[serde(rename = "misa")]
    Invariant {
        /// Weight of the central moment discrepancy between the shared parts.
        #[serde(default = "default::rate_0_3")]
        similar: f64,
        /// Weight of the overlap of shared and own parts.
        #[serde(default = "default::rate_0_1")]
        different: f64,
        /// Weight of the reconstruction error.
        #[serde(default = "default::rate_0_3")]
        restore: f64,
        /// Heads of the transformer over the parts.
        #[serde(default = "default::int_2")]
        heads: i64,
    },
    /// A mixture of experts, one a modality and one for all, told by a router (Jacobs 1991; Shazeer 2017).
    #[serde(rename = "experts")]
    Experts {
        /// Weight of the loss that keeps all experts in use.
        #[serde(default = "default::rate_0_01")]
        balance: f64,
    },
    /// Each modality attends to each other.
    #[serde(rename = "cross_attention")]
    Cross {
        /// Heads of the attention.
        #[serde(default = "default::int_4")]
        heads: i64,
    },
    /// Parallel co-attention of each pair (Lu 2016).
    #[serde(rename = "co_attention")]
    CoAttention {
        /// Width in which two positions are compared.
        #[serde(default = "default::int_64")]
        hidden: i64,
    },
    /// Crossmodal transformers on temporal convolutions (MulT, Tsai 2019).
    #[serde(rename = "mult")]
    Mult {
        /// Blocks of each transformer.
        #[serde(default = "default::int_2")]
        layers: i64,
        /// Heads of each.
        #[serde(default = "default::int_4")]
        heads: i64,
        /// Window of the convolutions, in positions; odd.
        #[serde(default = "default::int_3")]
        kernel: i64,
        /// Rate of dropout in the blocks.
        #[serde(default = "default::rate_0_1")]
        dropout: f64,
        /// Whether one vector comes out, or one for each position (sequences of one length).
        #[serde(default = "default::yes")]
        pooled: bool,
    },
    /// Multimodal bottleneck transformer (MBT, Nagrani 2021).
    #[serde(rename = "bottleneck")]
    Bottleneck {
        /// Blocks of each modality.
        #[serde(default = "default::int_2")]
        layers: i64,
        /// Heads of each.
        #[serde(default = "default::int_4")]
        heads: i64,
        /// Bottleneck tokens.
        #[serde(default = "default::int_4")]
        tokens: i64,
    },
    /// Latents that attend to everything (Jaegle 2021).
    #[serde(rename = "perceiver")]
    Perceiver {
        /// How many.
        #[serde(default = "default::int_8")]
        latents: i64,
        /// Rounds of attention.
        #[serde(default = "default::int_2")]
        layers: i64,
        /// Heads of each.
        #[serde(default = "default::int_4")]
        heads: i64,
    },
    /// Memory fusion network (Zadeh 2018); sequences of one length.
    #[serde(rename = "mfn")]
    Memory {
        /// State of each modality's memory.
        #[serde(default = "default::int_32")]
        hidden: i64,
        /// State of the common one.
        #[serde(default = "default::int_64")]
        memory: i64,
        /// Whether the last state comes out, or one for each position.
        #[serde(default = "default::yes")]
        pooled: bool,
    },
    /// A non-local gate: the main modality sees everything (Wang 2018).
    #[serde(rename = "non_local")]
    NonLocal {
        /// The main modality; text, or the first, when absent.
        #[serde(default)]
        main: Option<String>,
    },
    /// Cyclic translation from the main modality to the others (MCTN, Pham 2019).
    #[serde(rename = "mctn")]
    Translation {
        /// The main modality, the only one that is read; text, or the first, when absent.
        #[serde(default)]
        main: Option<String>,
        /// Weight of the translation's errors, there and back.
        #[serde(default = "default::rate_0_3")]
        translate: f64,
    },
}

mod default {
    pub(super) fn int_0() -> i64 {
        0
    }
    pub(super) fn int_128() -> i64 {
        128
    }
    pub(super) fn int_16() -> i64 {
        16
    }
    pub(super) fn int_2() -> i64 {
        2
    }
    pub(super) fn int_3() -> i64 {
        3
    }
    pub(super) fn int_32() -> i64 {
        32
    }
    pub(super) fn int_4() -> i64 {
        4
    }
    pub(super) fn int_5() -> i64 {
        5
    }
    pub(super) fn int_64() -> i64 {
        64
    }
    pub(super) fn int_8() -> i64 {
        8
    }
    pub(super) fn rate_0_01() -> f64 {
        0.01
    }
    pub(super) fn rate_0_1() -> f64 {
        0.1
    }
    pub(super) fn rate_0_3() -> f64 {
        0.3
    }
    pub(super) fn rate_0_5() -> f64 {
        0.5
    }
    pub(super) fn yes() -> bool {
        true
    }
}

/// The operators: the `kind` of each, what it is, and whose.
pub const OPERATORS: &[(&str, &str)] = &[
    ("concat", "all side by side, through one layer (or two)"),
    ("stack", "a learned weight for each modality and dimension"),
    ("sequence", "one long sequence with modality embeddings, through a transformer"),
    ("gated", "gated multimodal unit (Arevalo 2017)"),
    ("multiplicative", "multiplicative interactions, each modality bilinear with what came before (Jayakumar 2020)"),
    ("tensor", "tensor fusion network: the outer product of all (Zadeh 2017)"),
    ("low_rank", "low-rank multimodal fusion (Liu 2018)"),
    ("mlb", "multimodal low-rank bilinear pooling (Kim 2017)"),
    ("mfb", "multimodal factorised bilinear pooling (Yu 2017)"),
    ("mutan", "multimodal Tucker fusion (Ben-younes 2017)"),
    ("film", "the others scale and shift the main modality (FiLM, Perez 2018)"),
    ("mmtm", "squeeze and excitation across modalities (MMTM, Joze 2020)"),
    ("mag", "multimodal adaptation gate: the others displace the main modality (Rahman 2020)"),
    ("misa", "modality-invariant and -specific representations (MISA, Hazarika 2020)"),
    ("experts", "a mixture of experts, one a modality and one for all, told by a router (Jacobs 1991; Shazeer 2017)"),
    ("cross_attention", "each modality attends to each other"),
    ("co_attention", "parallel co-attention of each pair (Lu 2016)"),
    ("mult", "crossmodal transformers on temporal convolutions (MulT, Tsai 2019)"),
    ("bottleneck", "multimodal bottleneck transformer (MBT, Nagrani 2021)"),
    ("perceiver", "latents that attend to everything (Jaegle 2021)"),
    ("mfn", "memory fusion network (Zadeh 2018); sequences of one length"),
    ("non_local", "a non-local gate: the main modality sees everything (Wang 2018)"),
    ("mctn", "cyclic translation from the main modality to the others (MCTN, Pham 2019)"),
];

impl Operator {
    /// Whether it takes sequences as they are (others take one vector a row, or act on each position).
    pub fn takes_sequences(&self) -> bool {
        matches!(
            self,
            Self::Sequence { .. }
                | Self::Cross { .. }
                | Self::CoAttention { .. }
                | Self::Mult { .. }
                | Self::Bottleneck { .. }
                | Self::Perceiver { .. }
                | Self::Memory { .. }
                | Self::NonLocal { .. }
        )
    }
}

/// The `kind` of an operator.
pub fn kind_of(operator: &Operator) -> String {
    let value = toml::Value::try_from(operator).ok();
    value.and_then(|v| v.get("kind").and_then(|k| k.as_str().map(ToOwned::to_owned))).unwrap_or_default()
}

/// An operator with its default settings, by its `kind`.
pub fn of_kind(kind: &str) -> Result<Operator> {
    let table = toml::Table::from_iter([("kind".to_owned(), toml::Value::String(kind.to_owned()))]);
    if !OPERATORS.iter().any(|(k, _)| *k == kind) {
        return Err(mm_core::Error::unknown("fusion operator", kind, OPERATORS.iter().map(|(k, _)| *k)).into());
    }
    Ok(config::parse(&toml::Value::Table(table), "fusion.operator")?)
}

/// What an operator makes of the parts.
pub(crate) struct Combined {
    /// `[rows, width]`, or `[rows, length, width]`.
    pub(crate) values: Tensor,
    /// `[rows, length]` bool, where `values` is a sequence with padding.
    pub(crate) mask: Option<Tensor>,
    pub(crate) loss: Option<Tensor>,
    /// `[rows]` for each modality, where the operator says how much each counted.
    pub(crate) weights: Vec<Tensor>,
}

impl Combined {
    pub(crate) fn of(values: Tensor) -> Self {
        Self { values, mask: None, loss: None, weights: Vec::new() }
    }
}

/// The part of a fusion that differs.
pub(crate) trait Body: Send {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined>;
}

/// Sizes that an operator is built for.
pub(crate) struct Sizes<'a> {
    /// Of each modality.
    pub(crate) parts: &'a [i64],
    /// Of the output.
    pub(crate) width: i64,
    /// The modality that some operators start from.
    pub(crate) main: usize,
}

struct Fused {
    inputs: Inputs,
    body: Box<dyn Body>,
    width: i64,
}

/// Builds a fusion of modalities whose features have these widths.
pub fn build(scope: &Scope<'_>, config: &FusionConfig, widths: &[(Modality, i64)]) -> Result<Box<dyn FusionOperator>> {
    if widths.is_empty() || config.width < 1 {
        let found = format!("{} modalities and width {}", widths.len(), config.width);
        return Err(Error::config("fusion", found, "at least one modality, and a positive width"));
    }
    for (name, rate) in [("dropout", config.dropout), ("modality_dropout", config.modality_dropout)] {
        if !(0.0..1.0).contains(&rate) {
            return Err(Error::config(format!("fusion.{name}"), rate, "a rate in [0, 1)"));
        }
    }
    let mut widths = widths.to_vec();
    widths.sort();
    let settings = InputSettings {
        width: config.width,
        dropout: config.dropout,
        missing: config.missing,
        modality_dropout: config.modality_dropout,
        project: config.project,
        aligned: config.aligned,
        sequences: config.operator.takes_sequences(),
    };
    if !config.project && config.operator.takes_sequences() && widths.iter().any(|(_, w)| *w != config.width) {
        let found = format!("features of widths {:?}", widths.iter().map(|w| w.1).collect::<Vec<_>>());
        return Err(Error::config("fusion.project", found, format!("width {} each, or project = true", config.width)));
    }
    let inputs = Inputs::new(scope, settings, &widths)?;
    let parts = inputs.widths();
    let main = match config.operator.main() {
        Some(name) => widths.iter().position(|(m, _)| m.name() == name).ok_or_else(|| {
            mm_core::Error::unknown("fusion.operator.main", name, widths.iter().map(|(m, _)| m.name()))
        })?,
        None => widths.iter().position(|(m, _)| *m == Modality::TEXT).unwrap_or(0),
    };
    let sizes = Sizes { parts: &parts, width: config.width, main };
    let body = config.operator.body(&scope.pp("operator"), &sizes)?;
    Ok(Box::new(Fused { inputs, body, width: config.width }))
}

impl Operator {
    fn main(&self) -> Option<&str> {
        match self {
            Self::Film { main }
            | Self::Adaptation { main, .. }
            | Self::NonLocal { main }
            | Self::Translation { main, .. } => main.as_deref(),
            _ => None,
        }
    }

    fn body(&self, scope: &Scope<'_>, sizes: &Sizes<'_>) -> Result<Box<dyn Body>> {
        let positive = |name: &str, found: i64| {
            if found < 1 { Err(Error::config(format!("fusion.operator.{name}"), found, "at least 1")) } else { Ok(()) }
        };
        Ok(match self {
            Self::Concat { hidden } => Box::new(Concat::new(scope, sizes, *hidden)?),
            Self::Stack {} => Box::new(Stack::new(scope, sizes)?),
            Self::Sequence { layers, heads, pooled } => {
                Box::new(Sequence::new(scope, sizes, *layers, *heads, *pooled)?)
            }
            Self::Gated {} => Box::new(mid::Gated::new(scope, sizes)?),
            Self::Multiplicative {} => Box::new(mid::Multiplicative::new(scope, sizes)?),
            Self::Tensor { part, hidden } => {
                positive("part", *part)?;
                positive("hidden", *hidden)?;
                Box::new(mid::TensorFusion::new(scope, sizes, *part, *hidden)?)
            }
            Self::LowRank { rank } => {
                positive("rank", *rank)?;
                Box::new(mid::LowRank::new(scope, sizes, *rank)?)
            }
            Self::Mlb {} => Box::new(mid::Bilinear::new(scope, sizes, mid::Pooling::Mlb)?),
            Self::Mfb { factors } => {
                positive("factors", *factors)?;
                Box::new(mid::Bilinear::new(scope, sizes, mid::Pooling::Mfb(*factors))?)
            }
            Self::Mutan { rank } => {
                positive("rank", *rank)?;
                Box::new(mid::Bilinear::new(scope, sizes, mid::Pooling::Mutan(*rank))?)
            }
            Self::Film { .. } => Box::new(mid::Film::new(scope, sizes)?),
            Self::Excitation { reduction } => {
                positive("reduction", *reduction)?;
                Box::new(mid::Excitation::new(scope, sizes, *reduction)?)
            }
            Self::Adaptation { beta, .. } => Box::new(mid::Adaptation::new(scope, sizes, *beta)?),
            Self::Invariant { similar, different, restore, heads } => {
                Box::new(mid::Invariant::new(scope, sizes, [*similar, *different, *restore], *heads)?)
            }
            Self::Experts { balance } => Box::new(mid::Experts::new(scope, sizes, *balance)?),
            Self::Cross { heads } => Box::new(mid::Cross::new(scope, sizes, *heads)?),
            Self::CoAttention { hidden } => {
                positive("hidden", *hidden)?;
                Box::new(mid::CoAttention::new(scope, sizes, *hidden)?)
            }
            Self::Mult { layers, heads, kernel, dropout, pooled } => {
                if *kernel < 1 || kernel % 2 == 0 {
                    return Err(Error::config("fusion.operator.kernel", kernel, "an odd number"));
                }
                Box::new(mid::Mult::new(scope, sizes, [*layers, *heads, *kernel], *dropout, *pooled)?)
            }
            Self::Bottleneck { layers, heads, tokens } => {
                positive("tokens", *tokens)?;
                Box::new(mid::Bottleneck::new(scope, sizes, *layers, *heads, *tokens)?)
            }
            Self::Perceiver { latents, layers, heads } => {
                positive("latents", *latents)?;
                Box::new(mid::Perceiver::new(scope, sizes, *latents, *layers, *heads)?)
            }
            Self::Memory { hidden, memory, pooled } => {
                positive("hidden", *hidden)?;
                positive("memory", *memory)?;
                Box::new(mid::Memory::new(scope, sizes, *hidden, *memory, *pooled)?)
            }
            Self::NonLocal { .. } => Box::new(mid::NonLocal::new(scope, sizes)?),
            Self::Translation { translate, .. } => Box::new(mid::Translation::new(scope, sizes, *translate)?),
        })
    }
}

impl FusionOperator for Fused {
    fn fuse(&self, set: &FeatureSet, train: bool) -> mm_core::Result<FusionOutput> {
        let gathered = self.inputs.gather(set, train)?;
        let combined = self.body.combine(&gathered.parts, train)?;
        let loss = match (gathered.loss, combined.loss) {
            (Some(a), Some(b)) => Some(a.add(&b)?),
            (a, b) => a.or(b),
        };
        let weights = self.inputs.names().cloned().zip(combined.weights).collect();
        let features = match &gathered.positions {
            // Back to where the positions stood; padding is zero.
            Some((batch, length, any, places)) => {
                let width = combined.values.size(1)?;
                let index = places.unsqueeze(1)?.expand(&[places.size(0)?, width])?;
                let flat = Tensor::zeros(&[batch * length, width], combined.values.dtype()?, combined.values.device())?;
                let spread = flat.scatter_add(0, &index, &combined.values)?;
                Features::new(spread.reshape(&[*batch, *length, width])?, Some(any.clone()))?
            }
            None if combined.values.rank() == 2 => Features::from_pooled(&combined.values)?,
            None => Features::new(combined.values, combined.mask)?,
        };
        Ok(FusionOutput { features, aux_loss: loss, modality_weights: weights })
    }

    fn dim(&self) -> i64 {
        self.width
    }
}
