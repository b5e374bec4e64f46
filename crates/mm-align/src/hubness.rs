//! Hubness: candidates that are among the nearest of many queries; measures of it, and scores that correct for it.

use crate::{
    Result,
    checks::{center, invalid, to_f64},
};
use mm_core::Tensor;

/// Cross-domain similarity local scaling (CSLS): `2 cos(x, y) − r(x) − r(y)`, where r is the mean cosine with the `k`
/// nearest neighbors in the other set. `cosines` is `[rows of a, rows of b]`, and so is the result.
///
/// From *Word Translation Without Parallel Data* (Conneau et al., 2018, <https://arxiv.org/abs/1710.04087>).
///
/// # Errors
/// When `cosines` is no matrix or `k` is less than 1.
pub fn csls(cosines: &Tensor, k: i64) -> Result<Tensor> {
    let shape = cosines.shape();
    if shape.len() != 2 || k < 1 {
        return Err(invalid("csls", format!("{shape:?}, k {k}"), "cosines [rows, rows] and k of at least 1"));
    }
    let mean_nearest = |x: &Tensor| -> Result<Tensor> { Ok(x.topk(k.min(x.size(1)?))?.0.mean_dim(&[1], false)?) };
    let (rows, columns) = (mean_nearest(cosines)?, mean_nearest(&cosines.transpose(0, 1)?)?);
    Ok(cosines.mul_scalar(2.0)?.sub(&rows.unsqueeze(1)?)?.sub(&columns.unsqueeze(0)?)?)
}

/// Hubness of a set of candidates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hubness {
    /// Skewness of the k-occurrence (how often each candidate is among the `k` nearest of a query): 0 without hubs,
    /// above 1 with hubs.
    pub skewness: f64,
    /// Fraction of candidates that are among the `k` nearest of no query.
    pub antihub_fraction: f64,
    /// Largest k-occurrence.
    pub max_occurrence: usize,
}

/// Hubness of `scores` `[queries, candidates]`, counted among the `k` best candidates of each query.
///
/// From *Hubs in Space: Popular Nearest Neighbors in High-Dimensional Data* (Radovanović, Nanopoulos and Ivanović,
/// 2010, <https://jmlr.org/papers/v11/radovanovic10a.html>).
pub fn hubness(scores: &Tensor, k: i64) -> Result<Hubness> {
    let candidates = scores.size(1)?;
    let (_, nearest) = scores.topk(k.clamp(1, candidates))?;
    let mut counts = vec![0usize; candidates as usize];
    nearest.to_vec::<i64>()?.iter().for_each(|c| counts[*c as usize] += 1);
    let count = counts.len() as f64;
    let mean = counts.iter().sum::<usize>() as f64 / count;
    let moment = |p: i32| counts.iter().map(|c| (*c as f64 - mean).powi(p)).sum::<f64>() / count;
    Ok(Hubness {
        skewness: moment(3) / moment(2).powf(1.5).max(1e-12),
        antihub_fraction: counts.iter().filter(|c| **c == 0).count() as f64 / count,
        max_occurrence: counts.iter().copied().max().unwrap_or(0),
    })
}

/// Scoring functions for retrieval that reduce hubness or the modality gap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HubnessCorrection {
    /// Cosine similarity.
    None,
    /// Cosine similarity after the mean of each modality is subtracted.
    MeanCentering,
    /// [`csls`] with this many neighbors.
    Csls(i64),
    /// Softmax over the *queries*, so that a candidate near to all queries matches none, at this inverse temperature:
    /// *Offline Bilingual Word Vectors, Orthogonal Transformations and the Inverted Softmax* (Smith et al., 2017,
    /// <https://arxiv.org/abs/1702.03859>).
    InvertedSoftmax(f64),
    /// Inverted softmax normalized by a bank of other queries, so that queries can come one at a time; queries whose
    /// best candidate is not a hub of the bank keep their cosines: *Cross Modal Retrieval with Querybank Normalisation*
    /// (Bogolin et al., 2022, <https://arxiv.org/abs/2112.12777>).
    QueryBank(f64),
}

impl HubnessCorrection {
    /// All corrections with their default settings.
    pub const ALL: [Self; 5] =
        [Self::None, Self::MeanCentering, Self::Csls(10), Self::InvertedSoftmax(20.0), Self::QueryBank(20.0)];

    /// Stable name in snake_case, as in JSON and reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::MeanCentering => "mean_centering",
            Self::Csls(_) => "csls",
            Self::InvertedSoftmax(_) => "inverted_softmax",
            Self::QueryBank(_) => "query_bank",
        }
    }

    /// Scores `[queries, candidates]` of embeddings `[queries, dim]` and `[candidates, dim]`. `bank` `[rows, dim]`
    /// holds the other queries for [`HubnessCorrection::QueryBank`]; the queries themselves are used when it is absent.
    /// [`HubnessCorrection::MeanCentering`] subtracts the means of the rows given.
    ///
    /// # Errors
    /// When the dimensions differ.
    pub fn scores(&self, queries: &Tensor, candidates: &Tensor, bank: Option<&Tensor>) -> Result<Tensor> {
        if queries.size(-1)? != candidates.size(-1)? {
            let found = format!("{:?} and {:?}", queries.shape(), candidates.shape());
            return Err(invalid("scores", found, "embeddings of the same dimension"));
        }
        match self {
            Self::None => cosines(queries, candidates),
            Self::MeanCentering => {
                let centered = |x: &Tensor| -> Result<Tensor> { center(&to_f64(x)?.normalize()?) };
                cosines(&centered(queries)?, &centered(candidates)?)
            }
            Self::Csls(k) => csls(&cosines(queries, candidates)?, *k),
            Self::InvertedSoftmax(inverse_temperature) => {
                let logits = cosines(queries, candidates)?.mul_scalar(*inverse_temperature)?;
                Ok(logits.sub(&logits.logsumexp(0)?.unsqueeze(0)?)?)
            }
            Self::QueryBank(inverse_temperature) => {
                query_bank(queries, candidates, bank.unwrap_or(queries), *inverse_temperature)
            }
        }
    }
}

fn cosines(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(to_f64(a)?.normalize()?.matmul(&to_f64(b)?.normalize()?.transpose(0, 1)?)?)
}

fn query_bank(queries: &Tensor, candidates: &Tensor, bank: &Tensor, inverse_temperature: f64) -> Result<Tensor> {
    let scores = cosines(queries, candidates)?;
    let bank_scores = cosines(bank, candidates)?; // [bank, candidates]
    let normalizer = bank_scores.mul_scalar(inverse_temperature)?.logsumexp(0)?;
    // The hubs are the candidates that some query of the bank likes best.
    let mut is_hub = vec![0f64; candidates.size(0)? as usize];
    bank_scores.argmax(1)?.to_vec::<i64>()?.iter().for_each(|c| is_hub[*c as usize] = 1.0);
    let is_hub = Tensor::from_slice(&is_hub)?.to_device(scores.device())?;
    let affected = is_hub.index_select(0, &scores.argmax(1)?)?.unsqueeze(1)?.gt_scalar(0.5)?;
    let normalized = scores.mul_scalar(inverse_temperature)?.sub(&normalizer.unsqueeze(0)?)?;
    Ok(normalized.where_cond(&affected, &scores)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::{ranks, recall_confidence_interval};
    use mm_core::{DType, Device};

    #[test]
    fn csls_demotes_a_hub() {
        // The last column is near to every row; the other rows' partners are nearer to them alone.
        let cosines = Tensor::from_vec(&[0.7f64, 0.1, 0.75, 0.1, 0.7, 0.75, 0.1, 0.1, 0.8], &[3, 3]).unwrap();
        assert_eq!(cosines.argmax(1).unwrap().to_vec::<i64>().unwrap(), [2, 2, 2]);
        assert_eq!(csls(&cosines, 2).unwrap().argmax(1).unwrap().to_vec::<i64>().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn hubness_matches_a_hand_count() {
        let scores = Tensor::from_vec(&[0.9f64, 0.1, 0.5, 0.8, 0.7, 0.2, 0.9, 0.3, 0.6], &[3, 3]).unwrap();
        let found = hubness(&scores, 1).unwrap();
        assert_eq!((found.max_occurrence, found.antihub_fraction), (3, 2.0 / 3.0));
        assert!((found.skewness - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-6);
    }

    #[test]
    fn corrections_recover_recall_lost_to_a_shift_and_a_hub() {
        mm_core::seed::manual_seed(2);
        let a = Tensor::randn(&[60, 8], DType::F64, Device::Cpu).unwrap();
        let noise = Tensor::randn(&[60, 8], DType::F64, Device::Cpu).unwrap().mul_scalar(0.6).unwrap();
        let b = a.add(&noise).unwrap();
        let shift = Tensor::from_slice(&[3f64, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        let (a, b) = (a.add(&shift).unwrap(), b.sub(&shift).unwrap());
        let recall = |correction: HubnessCorrection| {
            let scores = correction.scores(&a, &b, None).unwrap();
            recall_confidence_interval(&ranks(&scores).unwrap(), 1, 0).value
        };
        let plain = recall(HubnessCorrection::None);
        for correction in HubnessCorrection::ALL.into_iter().skip(1) {
            assert!(recall(correction) > plain, "{}: {}, was {plain}", correction.name(), recall(correction));
        }
    }
}
