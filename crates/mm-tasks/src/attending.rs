//! Beside the vectors, the positions of one modality look at those of another (stacked cross attention, SCAN, Lee 2018): which region a
//! word is about is learned from pairs alone, and pairs are ranked by it.

use crate::{Error, Result};
use mm_align::{
    ContrastiveConfig, ContrastiveLoss,
    attention::{ScorePooling, StackedCrossAttention},
    contrastive::Similarity,
};
use mm_core::{
    Features, Modality, Module, Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};
use serde::{Deserialize, Serialize};

/// Settings of stacked attention beside the vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionConfig {
    /// The modality whose positions look: words.
    #[serde(default = "text")]
    pub queries: String,
    /// The modality whose positions are looked at: regions of a picture, frames of a sound.
    #[serde(default = "image")]
    pub keys: String,
    /// Weight of this loss beside the mean of the others.
    #[serde(default = "one")]
    pub weight: f64,
    /// What cosines are multiplied by before the softmax over the keys.
    #[serde(default = "nine")]
    pub sharpness: f64,
    /// How the queries' agreements become one number.
    #[serde(default)]
    pub pooling: ScorePooling,
    /// Whether each key's cosines are brought to unit length over the queries first, as in the paper; maps are sharper without.
    #[serde(default)]
    pub level: bool,
    /// Rate of dropout on the positions while training.
    #[serde(default = "some")]
    pub dropout: f64,
}

fn text() -> String {
    "text".into()
}

fn image() -> String {
    "image".into()
}

fn one() -> f64 {
    1.0
}

fn nine() -> f64 {
    9.0
}

fn some() -> f64 {
    0.3
}

struct Side {
    modality: Modality,
    norm: Norm,
    projection: Linear,
}

/// The two sides' ways into the space where positions are compared, and the loss.
pub(crate) struct Attending {
    sides: [Side; 2],
    scan: StackedCrossAttention,
    loss: ContrastiveLoss,
    config: AttentionConfig,
}

/// Rows of either side that are compared at once: memory is their product, times queries, times keys or width.
const BLOCK: usize = 16;

impl Attending {
    /// Over positions of these widths (queries', keys').
    pub fn new(
        scope: &Scope<'_>,
        config: &AttentionConfig,
        widths: [i64; 2],
        width: i64,
        loss: &ContrastiveConfig,
    ) -> Result<Self> {
        if !(config.sharpness > 0.0 && config.weight >= 0.0 && (0.0..1.0).contains(&config.dropout)) {
            return Err(Error::Config(format!(
                "attention: found sharpness {}, weight {}, dropout {}; wanted a positive number, no negative one, and a rate in [0, 1)",
                config.sharpness, config.weight, config.dropout
            )));
        }
        let side = |name: &str, input: i64| {
            let place = scope.pp(name);
            Ok::<_, Error>(Side {
                modality: Modality::from(name),
                norm: Norm::new(&place.pp("norm"), input, NormConfig::default())?,
                projection: Linear::new(&place.pp("projection"), input, width, true)?,
            })
        };
        Ok(Self {
            sides: [side(&config.queries, widths[0])?, side(&config.keys, widths[1])?],
            scan: StackedCrossAttention {
                inverse_temperature: config.sharpness,
                pooling: config.pooling,
                normalize_over_queries: config.level,
            },
            loss: ContrastiveLoss::new(&scope.pp("loss"), loss)?,
            config: config.clone(),
        })
    }

    pub fn weight(&self) -> f64 {
        self.config.weight
    }

    /// Who looks, and who is looked at.
    pub fn modalities(&self) -> [&Modality; 2] {
        [&self.sides[0].modality, &self.sides[1].modality]
    }

    /// Positions of one side where they are compared; `side` 0 looks, 1 is looked at.
    pub fn project(&self, side: usize, positions: &Features, train: bool) -> mm_core::Result<Features> {
        let own = &self.sides[side];
        let x = own.norm.forward(&positions.values, train)?.dropout(self.config.dropout, train)?;
        Features::new(own.projection.forward(&x, train)?, positions.mask.clone())
    }

    /// The loss of projected rows that belong together; `same` says which show the same.
    pub fn loss(&self, queries: &Features, keys: &Features, same: &Tensor) -> Result<Tensor> {
        let agreement = self.scan.attend(queries, keys)?.similarity;
        Ok(self.loss.forward_similarity(&Similarity::from_scores(agreement)?, Some(same))?)
    }

    /// How well every row of queries goes with every row of keys, `[queries, keys]`; pieces as [`pieces`] makes them.
    pub fn agreement(&self, queries: &[Features], keys: &[Features]) -> Result<Tensor> {
        let row = |q: &Features| -> Result<Tensor> {
            let all = keys.iter().map(|k| Ok(self.scan.attend(q, k)?.similarity)).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?)
        };
        let rows = queries.iter().map(row).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?)
    }

    /// Where each query of a row looks in its own row of keys, `[queries, keys]`, each summing to one.
    pub fn map(&self, queries: &Features, keys: &Features) -> Result<Tensor> {
        Ok(self.scan.attend(queries, keys)?.attention.select(0, 0)?)
    }
}

/// So many rows are compared at once.
pub(crate) fn pieces<T>(all: &[T]) -> std::slice::Chunks<'_, T> {
    all.chunks(BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, Params, seed::Rng, seed::manual_seed};
    use mm_train::{Optimizer, OptimizerConfig};

    /// Scenes of four places with four of ten colours; texts name two of them. From pairs alone each word learns to look at its colour:
    /// held-out scenes, chance 0.25.
    #[test]
    fn words_learn_from_pairs_alone_what_they_are_about() {
        manual_seed(1);
        let params = Params::new(Device::Cpu);
        let config: AttentionConfig = toml::from_str("dropout = 0.0").unwrap();
        let loss = ContrastiveConfig::default();
        let net = Attending::new(&params.scope(), &config, [10, 12], 16, &loss).unwrap();
        let mut optimizer =
            Optimizer::new(&OptimizerConfig { lr: 1e-2, ..OptimizerConfig::default() }, &params).unwrap();
        let mut random = Rng::new(&[4]);
        let colours = Tensor::randn(&[10, 12], DType::F32, Device::Cpu).unwrap();
        let mut scenes = |rows: usize| {
            let (mut words, mut places) = (Vec::new(), Vec::new());
            for _ in 0..rows {
                let mut all: Vec<i64> = (0..10).collect();
                random.shuffle(&mut all);
                places.extend_from_slice(&all[..4]);
                words.extend([all[random.below(4)], all[random.below(4)]]);
            }
            let pick = |table: &Tensor, ids: &[i64], length: i64| {
                let rows = table.index_select(0, &Tensor::from_slice(ids).unwrap()).unwrap();
                Features::new(rows.reshape(&[-1, length, table.size(1).unwrap()]).unwrap(), None).unwrap()
            };
            let eye = Tensor::eye(10, DType::F32, Device::Cpu).unwrap();
            (pick(&eye, &words, 2), pick(&colours, &places, 4), words, places)
        };
        let project = |q: &Features, k: &Features, train: bool| {
            (net.project(0, q, train).unwrap(), net.project(1, k, train).unwrap())
        };
        for _ in 0..300 {
            let (words, places, ..) = scenes(32);
            let (q, k) = project(&words, &places, true);
            let same = Tensor::eye(32, DType::Bool, Device::Cpu).unwrap();
            optimizer.zero_grad();
            net.loss(&q, &k, &same).unwrap().backward().unwrap();
            optimizer.step(1.0, 1.0).unwrap();
        }
        let mut right = 0;
        for _ in 0..100 {
            let (words, places, named, there) = scenes(1);
            let (q, k) = project(&words, &places, false);
            let looked = net.map(&q, &k).unwrap().argmax(1).unwrap().to_vec::<i64>().unwrap();
            right += named.iter().zip(looked).filter(|(word, place)| there[*place as usize] == **word).count();
        }
        assert!(right > 180, "{right} of 200 words looked at their colour");
        let (words, places, ..) = scenes(20);
        let (q, k) = project(&words, &places, false);
        let cut =
            |f: &Features, from: i64, rows: i64| Features::new(f.values.narrow(0, from, rows).unwrap(), None).unwrap();
        let whole = net.agreement(std::slice::from_ref(&q), std::slice::from_ref(&k)).unwrap();
        let some = net.agreement(&[cut(&q, 0, 16), cut(&q, 16, 4)], &[cut(&k, 0, 16), cut(&k, 16, 4)]).unwrap();
        assert!(whole.sub(&some).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-5);
    }
}
