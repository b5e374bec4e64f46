//! Cross attention between the positions of two modalities: which image patch a word refers to is learned from pairs
//! only, and pairs are ranked by it.
//!
//! From *Stacked Cross Attention for Image-Text Matching* (Lee et al., 2018, <https://arxiv.org/abs/1803.08024>).

use super::{
    auxiliary::{AuxiliaryLoss, EncodedBatch, common_rows, match_matrix, select_rows},
    config::CrossAttentionConfig,
};
use crate::{Error, Result};
use mm_align::{ContrastiveConfig, ContrastiveLoss, attention::StackedCrossAttention, contrastive::Similarity};
use mm_core::{
    Features, Modality, Module, Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};

/// Rows of either modality that are compared at once: memory is their product, times queries, times keys or dimension.
pub(super) const BLOCK: usize = 16;

/// The two roles in cross attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The positions attend.
    Query,
    /// The positions are attended to.
    Key,
}

struct PositionProjection {
    modality: Modality,
    norm: Norm,
    projection: Linear,
}

/// The projections of both modalities' positions, and their loss.
pub(super) struct CrossAttention {
    query: PositionProjection,
    key: PositionProjection,
    attention: StackedCrossAttention,
    loss: ContrastiveLoss,
    config: CrossAttentionConfig,
}

impl CrossAttention {
    /// Over positions of these dimensions (queries, keys).
    pub(super) fn new(
        scope: &Scope<'_>,
        config: &CrossAttentionConfig,
        dims: [i64; 2],
        embed_dim: i64,
        loss: &ContrastiveConfig,
    ) -> Result<Self> {
        let projection = |modality: &str, dim: i64| {
            let scope = scope.pp(modality);
            Ok::<_, Error>(PositionProjection {
                modality: Modality::from(modality),
                norm: Norm::new(&scope.pp("norm"), dim, NormConfig::default())?,
                projection: Linear::new(&scope.pp("projection"), dim, embed_dim, true)?,
            })
        };
        Ok(Self {
            query: projection(&config.query_modality, dims[0])?,
            key: projection(&config.key_modality, dims[1])?,
            attention: StackedCrossAttention {
                inverse_temperature: config.inverse_temperature.get(),
                pooling: config.pooling,
                normalize_over_queries: config.normalize_over_queries,
            },
            loss: ContrastiveLoss::new(&scope.pp("loss"), loss)?,
            config: config.clone(),
        })
    }

    /// The modalities of queries and keys.
    pub(super) fn modalities(&self) -> [&Modality; 2] {
        [&self.query.modality, &self.key.modality]
    }

    /// Projects positions `[rows, length, dim]` to `[rows, length, embed_dim]`.
    pub(super) fn project(&self, role: Role, positions: &Features, train: bool) -> mm_core::Result<Features> {
        let own = if role == Role::Query { &self.query } else { &self.key };
        let x = own.norm.forward(&positions.values, train)?.dropout(self.config.dropout.get(), train)?;
        Features::new(own.projection.forward(&x, train)?, positions.mask.clone())
    }

    /// The loss of projected rows that belong together; `same` marks rows that match each other.
    fn forward(&self, queries: &Features, keys: &Features, same: &Tensor) -> Result<Tensor> {
        let similarity = self.attention.attend(queries, keys)?.similarity;
        Ok(self.loss.forward_similarity(&Similarity::from_scores(similarity)?, Some(same))?)
    }

    /// Similarity of every row of queries with every row of keys, `[queries, keys]`, each in blocks of [`BLOCK`] rows.
    pub(super) fn similarity(&self, queries: &[Features], keys: &[Features]) -> Result<Tensor> {
        let row = |q: &Features| -> Result<Tensor> {
            let blocks =
                keys.iter().map(|k| Ok(self.attention.attend(q, k)?.similarity)).collect::<Result<Vec<_>>>()?;
            Ok(Tensor::cat(&blocks.iter().collect::<Vec<_>>(), 1)?)
        };
        let rows = queries.iter().map(row).collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&rows.iter().collect::<Vec<_>>(), 0)?)
    }

    /// Attention weights of one row's queries over its keys, `[queries, keys]`; each row sums to one.
    pub(super) fn attention_map(&self, queries: &Features, keys: &Features) -> Result<Tensor> {
        Ok(self.attention.attend(queries, keys)?.attention.select(0, 0)?)
    }
}

impl AuxiliaryLoss for CrossAttention {
    fn name(&self) -> &'static str {
        "cross_attention"
    }

    fn weight(&self) -> f64 {
        self.config.weight.get()
    }

    fn loss(&self, encoded: &EncodedBatch<'_>, train: bool) -> mm_core::Result<Option<Tensor>> {
        let part = |modality: &Modality| {
            let rows = &encoded.batch.modalities.get(modality)?.rows;
            Some((encoded.features.get(modality)?.positions.as_ref()?, rows))
        };
        let [query_modality, key_modality] = self.modalities();
        let (Some((queries, query_rows)), Some((keys, key_rows))) = (part(query_modality), part(key_modality)) else {
            return Ok(None);
        };
        let rows = common_rows(query_rows, key_rows);
        if rows.len() < 2 {
            return Ok(None);
        }
        let select = |x: &Features, all: &[usize]| {
            let mask = x.mask.as_ref().map(|m| select_rows(m, all, &rows)).transpose()?;
            Features::new(select_rows(&x.values, all, &rows)?, mask)
        };
        let queries = self.project(Role::Query, &select(queries, query_rows)?, train)?;
        let keys = self.project(Role::Key, &select(keys, key_rows)?, train)?;
        let same = match_matrix(encoded.batch, &rows)?.to_device(keys.values.device())?;
        Ok(Some(self.forward(&queries, &keys, &same)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, Params, seed::Rng, seed::manual_seed};
    use mm_train::{Optimizer, OptimizerConfig};

    const COLORS: i64 = 10;
    const PATCHES: usize = 4;

    /// Scenes of four patches with distinct colors, and texts of two words that each name one of these colors.
    struct Scenes {
        /// One-hot words, `[rows, 2, COLORS]`.
        words: Features,
        /// `[rows, PATCHES, dim]`.
        patches: Features,
        /// The color of each word.
        word_colors: Vec<i64>,
        /// The color of each patch.
        patch_colors: Vec<i64>,
    }

    fn scenes(rows: usize, color_features: &Tensor, random: &mut Rng) -> Scenes {
        let (mut word_colors, mut patch_colors) = (Vec::new(), Vec::new());
        for _ in 0..rows {
            let mut colors: Vec<i64> = (0..COLORS).collect();
            random.shuffle(&mut colors);
            patch_colors.extend_from_slice(&colors[..PATCHES]);
            word_colors.extend([colors[random.below(PATCHES)], colors[random.below(PATCHES)]]);
        }
        let look_up = |table: &Tensor, ids: &[i64], length: i64| {
            let rows = table.index_select(0, &Tensor::from_slice(ids).unwrap()).unwrap();
            Features::new(rows.reshape(&[-1, length, table.size(1).unwrap()]).unwrap(), None).unwrap()
        };
        let one_hot = Tensor::eye(COLORS, DType::F32, Device::Cpu).unwrap();
        Scenes {
            words: look_up(&one_hot, &word_colors, 2),
            patches: look_up(color_features, &patch_colors, PATCHES as i64),
            word_colors,
            patch_colors,
        }
    }

    #[test]
    fn words_learn_to_attend_to_their_patch_from_pairs_alone() {
        manual_seed(1);
        let params = Params::new(Device::Cpu);
        let config: CrossAttentionConfig = toml::from_str("dropout = 0.0").unwrap();
        let model =
            CrossAttention::new(&params.scope(), &config, [COLORS, 12], 16, &ContrastiveConfig::default()).unwrap();
        let mut optimizer =
            Optimizer::new(&OptimizerConfig { lr: 1e-2, ..OptimizerConfig::default() }, &params).unwrap();
        let mut random = Rng::new(&[4]);
        let colors = Tensor::randn(&[COLORS, 12], DType::F32, Device::Cpu).unwrap();
        let project = |s: &Scenes, train: bool| {
            let queries = model.project(Role::Query, &s.words, train).unwrap();
            (queries, model.project(Role::Key, &s.patches, train).unwrap())
        };
        for _ in 0..300 {
            let (queries, keys) = project(&scenes(32, &colors, &mut random), true);
            let same = Tensor::eye(32, DType::Bool, Device::Cpu).unwrap();
            optimizer.zero_grad();
            model.forward(&queries, &keys, &same).unwrap().backward().unwrap();
            optimizer.step(1.0, 1.0).unwrap();
        }
        let mut correct = 0;
        for _ in 0..100 {
            let scene = scenes(1, &colors, &mut random);
            let (queries, keys) = project(&scene, false);
            let attended = model.attention_map(&queries, &keys).unwrap().argmax(1).unwrap().to_vec::<i64>().unwrap();
            let words = scene.word_colors.iter().zip(attended);
            correct += words.filter(|(word, patch)| scene.patch_colors[*patch as usize] == **word).count();
        }
        assert!(correct > 180, "{correct} of 200 words attend to the patch of their color; chance is 50");
        let (queries, keys) = project(&scenes(20, &colors, &mut random), false);
        let rows = |f: &Features, from: i64, count: i64| {
            Features::new(f.values.narrow(0, from, count).unwrap(), None).unwrap()
        };
        let whole = model.similarity(std::slice::from_ref(&queries), std::slice::from_ref(&keys)).unwrap();
        let blocks = |f: &Features| [rows(f, 0, 16), rows(f, 16, 4)];
        let in_blocks = model.similarity(&blocks(&queries), &blocks(&keys)).unwrap();
        assert!(whole.sub(&in_blocks).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-5);
    }
}
