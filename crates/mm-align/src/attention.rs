//! Stacked cross-attention (SCAN): which region of an image a word refers to, and an image–text similarity computed
//! from that.

use crate::{Result, checks::invalid};
use mm_core::{DType, Features, Tensor};
use serde::{Deserialize, Serialize};

/// How the relevance scores of all queries are pooled into one similarity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScorePooling {
    /// Mean over the queries.
    #[default]
    Mean,
    /// `logsumexp` over the queries, at 10/9 of the inverse temperature: the best queries dominate.
    LogSumExp,
}

/// Stacked cross-attention without parameters: queries attend to keys by cosine similarity.
///
/// From *Stacked Cross Attention for Image-Text Matching* (Lee et al., 2018, <https://arxiv.org/abs/1803.08024>).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackedCrossAttention {
    /// Factor of the cosines before the softmax over the keys (9 in the paper, for words that attend to regions).
    pub inverse_temperature: f64,
    /// How query relevances are pooled.
    pub pooling: ScorePooling,
    /// Whether the scores of each key are normalized to unit length over the queries before the softmax, as in the
    /// paper. A key that no query refers to then has as much weight as the others, so with few queries the attention
    /// maps are sharper without it.
    pub normalize_over_queries: bool,
}

impl Default for StackedCrossAttention {
    fn default() -> Self {
        Self { inverse_temperature: 9.0, pooling: ScorePooling::Mean, normalize_over_queries: true }
    }
}

/// The result of [`StackedCrossAttention::attend`].
#[derive(Debug, Clone)]
pub struct CrossAttentionOutput {
    /// Similarity of each row of queries with each row of keys, `[query rows, key rows]`.
    pub similarity: Tensor,
    /// Attention of row i's queries over row i's keys, `[rows, queries, keys]`; sums to one over the keys.
    pub attention: Tensor,
}

impl StackedCrossAttention {
    /// Similarity and attention of every row of `queries` with every row of `keys`, features `[rows, length, dim]`
    /// each; masked positions are ignored. Memory grows with `query rows · key rows · query length · key length`.
    ///
    /// # Errors
    /// When the feature dimensions differ.
    pub fn attend(&self, queries: &Features, keys: &Features) -> Result<CrossAttentionOutput> {
        let (q, k) = (queries.values.normalize()?, keys.values.normalize()?);
        let (rows, length, dim) = (q.size(0)?, q.size(1)?, q.size(2)?);
        if dim != k.size(2)? {
            let found = format!("dimensions {dim} and {}", k.size(2)?);
            return Err(invalid("stacked cross-attention", found, "queries and keys of the same dimension"));
        }
        let weights = self.weights(queries, keys, &q, &k)?; // [rows, key rows, queries, keys]
        let attended = weights.matmul(&k.unsqueeze(0)?)?; // [rows, key rows, queries, dim]
        let relevance = attended.normalize()?.mul(&q.unsqueeze(1)?)?.sum_dim(&[3], false)?; // [rows, key rows, queries]
        let valid = match &queries.mask {
            Some(mask) => mask.to_dtype(DType::F32)?,
            None => Tensor::ones(&[rows, length], DType::F32, q.device())?,
        }
        .unsqueeze(1)?; // [rows, 1, queries]
        let similarity = match self.pooling {
            ScorePooling::Mean => {
                relevance.mul(&valid)?.sum_dim(&[2], false)?.div(&valid.sum_dim(&[2], false)?.clamp_min(1.0)?)?
            }
            ScorePooling::LogSumExp => {
                let lambda = 10.0 * self.inverse_temperature.max(1e-6) / 9.0;
                let padding = valid.eq_scalar(0.0)?;
                let scores = relevance.mul_scalar(lambda)?;
                scores.masked_fill(&padding, scores.dtype()?.mask_value())?.logsumexp(2)?.mul_scalar(1.0 / lambda)?
            }
        };
        let paired: Vec<Tensor> =
            (0..rows.min(k.size(0)?)).map(|r| Ok(weights.select(0, r)?.select(0, r)?)).collect::<Result<_>>()?;
        Ok(CrossAttentionOutput { similarity, attention: Tensor::stack(&paired.iter().collect::<Vec<_>>(), 0)? })
    }

    /// Attention weights `[rows, key rows, queries, keys]` of normalized queries `q` and keys `k`.
    fn weights(&self, queries: &Features, keys: &Features, q: &Tensor, k: &Tensor) -> Result<Tensor> {
        let (rows, length, dim) = (q.size(0)?, q.size(1)?, q.size(2)?);
        let (key_rows, key_length) = (k.size(0)?, k.size(1)?);
        let cosines = q
            .reshape(&[rows * length, dim])?
            .matmul(&k.reshape(&[key_rows * key_length, dim])?.transpose(0, 1)?)?
            .reshape(&[rows, length, key_rows, key_length])?
            .permute(&[0, 2, 1, 3])?;
        let mut scores = cosines.relu()?;
        if let Some(mask) = &queries.mask {
            scores = scores.mul(&mask.to_dtype(DType::F32)?.reshape(&[rows, 1, length, 1])?)?;
        }
        if self.normalize_over_queries {
            scores = scores.div(&scores.pow(2.0)?.sum_dim(&[2], true)?.add_scalar(1e-8)?.sqrt()?)?;
        }
        scores = scores.mul_scalar(self.inverse_temperature)?;
        if let Some(mask) = &keys.mask {
            let padding = mask.logical_not()?.reshape(&[1, key_rows, 1, key_length])?;
            scores = scores.masked_fill(&padding, scores.dtype()?.mask_value())?;
        }
        Ok(scores.softmax(3)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
    }

    #[test]
    fn each_word_attends_to_its_region_and_padding_is_ignored() {
        manual_seed(1);
        // Nearly orthogonal regions, so that each has one word whatever the noise.
        let orthogonal = Tensor::eye(8, DType::F32, Device::Cpu).unwrap().reshape(&[2, 4, 8]).unwrap();
        let noise = Tensor::rand(&[2, 4, 8], DType::F32, Device::Cpu).unwrap().mul_scalar(0.1).unwrap();
        let regions = orthogonal.add(&noise).unwrap();
        // Each text is a permutation of its image's regions; the padded version has one more position.
        let order = Tensor::from_slice(&[2i64, 0, 3, 1]).unwrap();
        let words = regions.index_select(1, &order).unwrap();
        let padded = Tensor::cat(&[&words, &randn(&[2, 1, 8])], 1).unwrap();
        let mask = Tensor::from_vec(&[true, true, true, true, false, true, true, true, true, false], &[2, 5]).unwrap();
        let scan = StackedCrossAttention { inverse_temperature: 40.0, ..StackedCrossAttention::default() };
        let images = Features::new(regions, None).unwrap();
        let found = scan.attend(&Features::new(words, None).unwrap(), &images).unwrap();
        assert_eq!(found.attention.argmax(2).unwrap().to_vec::<i64>().unwrap(), [2, 0, 3, 1, 2, 0, 3, 1]);
        let sums = found.attention.sum_dim(&[2], false).unwrap().to_vec::<f32>().unwrap();
        assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-5));
        let other = scan.attend(&Features::new(padded.clone(), Some(mask.clone())).unwrap(), &images).unwrap();
        let off = found.similarity.sub(&other.similarity).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        assert!(off < 1e-4, "{off}");
        let similarity = found.similarity.to_vec::<f32>().unwrap();
        assert!(similarity[0] > similarity[1] && similarity[3] > similarity[2]);
        let back = scan.attend(&images, &Features::new(padded, Some(mask)).unwrap()).unwrap();
        assert!(back.attention.select(2, 4).unwrap().max().unwrap().to_f64().unwrap() < 1e-6);
    }
}
