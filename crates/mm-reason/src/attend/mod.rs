//! Networks that answer a question about what another modality shows, trained here: each one file, named by the `kind` of its settings,
//! built over the same words and places, telling where it looked at each step.

mod bilinear;
mod bottom_up;
mod co_attention;
mod compact_bilinear;
mod film;
mod mac;
mod modules;
mod mutan;
mod perceptron;
mod relation;
mod single_stream;
mod stacked;

pub use relation::Condition;

use crate::{Error, Result};
use mm_core::{
    DType, FeatureSet, Features, Looked, Modality, Module, Pool, ReasonOutput, Reasoner, Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};
use serde::{Deserialize, Serialize};

/// Settings of a reasoning network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReasonConfig {
    /// The modality that asks.
    pub query: String,
    /// Which network, and its own settings.
    pub network: Network,
    /// Width of its features.
    pub width: i64,
    /// Rate of dropout while training.
    pub dropout: f64,
    /// Whether places of a square grid know where they are.
    pub coordinates: bool,
    /// Whether words and places are normed where they come in: then each place weighs as much as any other, an empty one too.
    pub norm: bool,
}

impl Default for ReasonConfig {
    fn default() -> Self {
        Self {
            query: "text".into(),
            network: Network::Stacked { steps: 2 },
            width: 128,
            dropout: 0.1,
            coordinates: true,
            norm: true,
        }
    }
}

/// Which network, by its `kind`, and its own settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Network {
    /// Stacked attention networks (SAN, Yang 2016).
    Stacked {
        /// How often it looks.
        #[serde(default = "two")]
        steps: i64,
    },
    /// One gated attention and a product (bottom-up and top-down, Anderson 2018).
    BottomUp {},
    /// Bilinear attention over pairs of words and places (BAN, Kim 2018).
    Bilinear {
        /// How often it looks.
        #[serde(default = "two")]
        glimpses: i64,
    },
    /// Attention by compact bilinear pooling (MCB, Fukui 2016).
    CompactBilinear {
        /// Width of the sketch.
        #[serde(default = "sketch")]
        sketch: i64,
    },
    /// Attention by a bilinear form in Tucker's decomposition (MUTAN, Ben-younes 2017).
    Mutan {
        /// Rank of the core.
        #[serde(default = "three")]
        rank: i64,
    },
    /// Deep modular co-attention (MCAN, Yu 2019).
    CoAttention {
        /// Blocks on each side.
        #[serde(default = "two")]
        layers: i64,
        /// Heads of each.
        #[serde(default = "four")]
        heads: i64,
    },
    /// Feature-wise linear modulation of residual convolutions (FiLM, Perez 2018).
    Film {
        /// Residual blocks.
        #[serde(default = "three")]
        blocks: i64,
    },
    /// All pairs of places under the question (relation network, Santoro 2017).
    Relation {
        /// Layers of the network on pairs.
        #[serde(default = "three")]
        layers: i64,
        /// How the question enters it.
        #[serde(default)]
        condition: Condition,
    },
    /// Memory, attention and composition (MAC, Hudson 2018).
    Mac {
        /// Reasoning steps.
        #[serde(default = "four")]
        steps: i64,
    },
    /// A chain of neural modules, one a word (Andreas 2016): what asks is a program, not a question.
    Modules {},
    /// All places side by side through plain layers: a baseline without relations (the CNN+MLP of Santoro 2017).
    Perceptron {
        /// Places of the pictures: the square of the side that the picture's encoder leaves.
        places: i64,
        /// Layers.
        #[serde(default = "two")]
        layers: i64,
    },
    /// Words and places in one transformer (as ViLT, Kim 2021).
    SingleStream {
        /// Blocks.
        #[serde(default = "three")]
        layers: i64,
        /// Heads of each.
        #[serde(default = "four")]
        heads: i64,
    },
}

fn two() -> i64 {
    2
}

fn three() -> i64 {
    3
}

fn four() -> i64 {
    4
}

fn sketch() -> i64 {
    512
}

/// The networks' names.
pub const NETWORKS: &[&str] = &[
    "stacked",
    "bottom_up",
    "bilinear",
    "compact_bilinear",
    "mutan",
    "co_attention",
    "film",
    "relation",
    "mac",
    "modules",
    "perceptron",
    "single_stream",
];

/// What a network is given, all of one width.
pub(crate) struct Scene {
    /// Words `[rows, words, width]`, and which count `[rows, words]` bool.
    pub(crate) words: Tensor,
    pub(crate) words_mask: Tensor,
    /// The question as one vector `[rows, width]`.
    pub(crate) question: Tensor,
    /// Places `[rows, places, width]`, and which count `[rows, places]` bool.
    pub(crate) places: Tensor,
    pub(crate) places_mask: Tensor,
    pub(crate) train: bool,
}

impl Scene {
    /// Weights `[rows, places]` of scores of places; places that do not count get none.
    pub(crate) fn weigh(&self, scores: &Tensor) -> mm_core::Result<Tensor> {
        scores.masked_fill(&self.places_mask.logical_not()?, DType::F32.lowest())?.softmax(-1)
    }

    /// The sum of places `[rows, width]` under weights `[rows, places]`.
    pub(crate) fn gather(weights: &Tensor, places: &Tensor) -> mm_core::Result<Tensor> {
        weights.unsqueeze(1)?.matmul(places)?.squeeze(1)
    }

    /// Side of the square that the places are.
    pub(crate) fn side(&self) -> mm_core::Result<i64> {
        let count = self.places.size(1)?;
        let side = (count as f64).sqrt().round() as i64;
        if side * side == count {
            return Ok(side);
        }
        Err(mm_core::Error::config("reason.network", format!("{count} places"), "a square grid for this network"))
    }
}

/// The answer's vector `[rows, width]`, and where it looked at each step, `[rows, places]` each.
pub(crate) type Thought = (Tensor, Vec<Tensor>);

pub(crate) trait Body: Send {
    fn think(&self, scene: &Scene) -> mm_core::Result<Thought>;
}

struct Way {
    modality: Modality,
    projection: Linear,
    norm: Option<Norm>,
}

/// A reasoning network over whatever modalities beside the asking one a config has.
struct Asking {
    query: Way,
    ways: Vec<Way>,
    body: Box<dyn Body>,
    config: ReasonConfig,
}

/// Builds what the config names, for modalities of these widths.
pub fn build(scope: &Scope<'_>, config: &ReasonConfig, widths: &[(Modality, i64)]) -> Result<Box<dyn Reasoner>> {
    let (width, drop) = (config.width, config.dropout);
    if width < 4 || !(0.0..1.0).contains(&drop) {
        let found = format!("width {width}, dropout {drop}");
        return Err(Error::invalid_argument("reason", found, "a width of at least 4 and a rate in [0, 1)"));
    }
    let way = |modality: &Modality, input: i64, more: i64| {
        let place = scope.pp("inputs").pp(modality);
        Ok::<_, Error>(Way {
            modality: modality.clone(),
            projection: Linear::new(&place.pp("projection"), input + more, width, true)?,
            norm: config.norm.then(|| Norm::new(&place.pp("norm"), width, NormConfig::default())).transpose()?,
        })
    };
    let asks = |m: &Modality| m.name() == config.query;
    let Some((modality, input)) = widths.iter().find(|(m, _)| asks(m)) else {
        let known = widths.iter().map(|(m, _)| m.name());
        return Err(mm_core::Error::unknown("modality that asks (reason.query)", &config.query, known).into());
    };
    let query = way(modality, *input, 0)?;
    let others: Vec<&(Modality, i64)> = widths.iter().filter(|(m, _)| !asks(m)).collect();
    if others.is_empty() {
        return Err(Error::invalid_argument(
            "inputs",
            "one modality",
            "one that asks and at least one that is asked about",
        ));
    }
    let more = if config.coordinates { 2 } else { 0 };
    let ways = others.iter().map(|(m, input)| way(m, *input, more)).collect::<Result<Vec<_>>>()?;
    let place = scope.pp("network");
    let body: Box<dyn Body> = match config.network {
        Network::Stacked { steps } => Box::new(stacked::Stacked::new(&place, width, steps)?),
        Network::BottomUp {} => Box::new(bottom_up::BottomUp::new(&place, width)?),
        Network::Bilinear { glimpses } => Box::new(bilinear::Bilinear::new(&place, width, glimpses)?),
        Network::CompactBilinear { sketch } => Box::new(compact_bilinear::CompactBilinear::new(&place, width, sketch)?),
        Network::Mutan { rank } => Box::new(mutan::Mutan::new(&place, width, rank)?),
        Network::CoAttention { layers, heads } => {
            Box::new(co_attention::CoAttention::new(&place, width, [layers, heads], drop)?)
        }
        Network::Film { blocks } => Box::new(film::Film::new(&place, width, blocks)?),
        Network::Relation { layers, condition } => {
            Box::new(relation::Relation::new(&place, width, layers, condition, drop)?)
        }
        Network::Mac { steps } => Box::new(mac::Mac::new(&place, width, steps, drop)?),
        Network::Modules {} => Box::new(modules::Modules::new(&place, width, drop)?),
        Network::Perceptron { places, layers } => {
            Box::new(perceptron::Perceptron::new(&place, width, [places, layers], drop)?)
        }
        Network::SingleStream { layers, heads } => {
            Box::new(single_stream::SingleStream::new(&place, width, [layers, heads], drop)?)
        }
    };
    Ok(Box::new(Asking { query, ways, body, config: config.clone() }))
}

/// At least one step, block or layer.
pub(crate) fn at_least_one(what: &str, found: i64) -> Result<()> {
    if found < 1 {
        return Err(Error::invalid_argument(format!("reason.network.{what}"), found, "at least 1"));
    }
    Ok(())
}

/// Row and column of each place of a square grid, in [−1, 1], `[places, 2]`; zeros where the places are no square.
fn coordinates(count: i64) -> mm_core::Result<Tensor> {
    let side = (count as f64).sqrt().round() as i64;
    let square = side * side == count && side > 1;
    let at = |n: i64| if square { 2.0 * n as f32 / (side - 1) as f32 - 1.0 } else { 0.0 };
    let all: Vec<f32> = (0..count).flat_map(|n| [at(n / side.max(1)), at(n % side.max(1))]).collect();
    Tensor::from_vec(&all, &[count, 2])
}

impl Asking {
    /// One modality at the network's width, and which of its positions count.
    fn project(&self, way: &Way, set: &FeatureSet, place: bool, train: bool) -> mm_core::Result<(Tensor, Tensor)> {
        let Some(features) = set.get(&way.modality) else {
            // No row has it: one position that does not count.
            let device = way.projection.weight().device();
            let x = Tensor::zeros(&[set.rows(), 1, self.config.width], DType::F32, device)?;
            return Ok((x, Tensor::zeros(&[set.rows(), 1], DType::Bool, device)?));
        };
        let mut x = features.values.clone();
        let shape = x.shape();
        if place {
            let where_ = coordinates(shape[1])?.to_device(x.device())?.unsqueeze(0)?.expand(&[shape[0], -1, -1])?;
            x = Tensor::cat(&[&x, &where_.to_dtype(x.dtype()?)?], 2)?;
        }
        let x = way.projection.forward(&x, train)?;
        let x = way.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x, train))?;
        let x = x.dropout(self.config.dropout, train)?;
        let mut mask = match &features.mask {
            Some(mask) => mask.clone(),
            None => Tensor::ones(&shape[..2], DType::Bool, x.device())?,
        };
        if let Some(present) = set.present(&way.modality) {
            mask = mask.logical_and(&present.unsqueeze(1)?)?;
        }
        Ok((x.mul(&mask.unsqueeze(-1)?.to_dtype(x.dtype()?)?)?, mask))
    }
}

impl Reasoner for Asking {
    fn reason(&self, set: &FeatureSet, train: bool) -> mm_core::Result<ReasonOutput> {
        let (words, words_mask) = self.project(&self.query, set, false, train)?;
        let question = Features::new(words.clone(), Some(words_mask.clone()))?.pool(Pool::Last)?;
        let mut all = Vec::new();
        for way in &self.ways {
            all.push(self.project(way, set, self.config.coordinates, train)?);
        }
        let places = Tensor::cat(&all.iter().map(|(x, _)| x).collect::<Vec<_>>(), 1)?;
        let places_mask = Tensor::cat(&all.iter().map(|(_, m)| m).collect::<Vec<_>>(), 1)?;
        let scene = Scene { words, words_mask, question, places, places_mask, train };
        let (answer, steps) = self.body.think(&scene)?;
        let mut looked = Vec::new();
        for (number, weights) in steps.iter().enumerate() {
            let mut from = 0;
            for (way, (x, _)) in self.ways.iter().zip(&all) {
                let count = x.size(1)?;
                let weights = weights.narrow(1, from, count)?;
                looked.push(Looked { step: number, modality: way.modality.clone(), weights });
                from += count;
            }
        }
        Ok(ReasonOutput { features: Features::from_pooled(&answer)?, looked })
    }

    fn width(&self) -> i64 {
        self.config.width
    }
}

#[cfg(test)]
mod tests;
