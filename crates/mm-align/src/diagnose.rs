//! Measures of a joint embedding space: modality gap, alignment and uniformity, effective rank, ranks and recall.

use crate::{
    Result,
    checks::{center, check_not_nan, check_paired, invalid, to_f64},
};
use mm_core::{DType, Tensor, seed::Rng};
use serde::Serialize;

/// The result of [`modality_gap`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ModalityGap {
    /// Distance of the two modalities' centroids on the unit sphere, 0 to 2.
    pub centroid_distance: f64,
    /// Mean squared distance of paired embeddings ("alignment"); lower is better.
    pub alignment: f64,
    /// Logarithm of the mean Gaussian potential of all pairs of rows of both sets ("uniformity"); lower is more
    /// uniform.
    pub uniformity: f64,
}

/// Modality gap, alignment and uniformity of paired embeddings `a` and `b` `[rows, dim]`.
///
/// From *Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation Learning* (Liang et
/// al., 2022, <https://arxiv.org/abs/2203.02053>) and *Understanding Contrastive Representation Learning through
/// Alignment and Uniformity on the Hypersphere* (Wang and Isola, 2020, <https://arxiv.org/abs/2005.10242>).
///
/// # Errors
/// When the shapes differ or there are fewer than two rows.
pub fn modality_gap(a: &Tensor, b: &Tensor) -> Result<ModalityGap> {
    if a.shape() != b.shape() || a.rank() != 2 || a.size(0)? < 2 {
        let found = format!("{:?} and {:?}", a.shape(), b.shape());
        return Err(invalid("modality gap", found, "two sets [rows, dim] of the same shape with at least two rows"));
    }
    let (a, b) = (a.normalize()?.to_dtype(DType::F64)?, b.normalize()?.to_dtype(DType::F64)?);
    let centroid = |x: &Tensor| x.mean_dim(&[0], false);
    let partner_distances = a.sub(&b)?.pow(2.0)?.sum_dim(&[1], false)?;
    let both = Tensor::cat(&[&a, &b], 0)?;
    let rows = both.size(0)?;
    // On the unit sphere the squared distance is 2 − 2 cos.
    let squared = both.matmul(&both.transpose(0, 1)?)?.mul_scalar(-2.0)?.add_scalar(2.0)?;
    let potential = squared.mul_scalar(-2.0)?.exp()?;
    let off_diagonal =
        (potential.sum()?.to_f64()? - potential.diagonal()?.sum()?.to_f64()?) / (rows * (rows - 1)) as f64;
    Ok(ModalityGap {
        centroid_distance: centroid(&a)?.sub(&centroid(&b)?)?.norm(-1, false)?.to_f64()?,
        alignment: partner_distances.mean()?.to_f64()?,
        uniformity: off_diagonal.ln(),
    })
}

/// Opening angle, in degrees, of the cone in which a modality's embeddings `[rows, dim]` lie: the arc cosine of their
/// mean cosine similarity with their centroid.
pub fn cone_angle(x: &Tensor) -> Result<f64> {
    let unit = to_f64(x)?.normalize()?;
    let centroid = unit.mean_dim(&[0], true)?.normalize()?;
    Ok(unit.mul(&centroid)?.sum_dim(&[1], false)?.mean()?.to_f64()?.clamp(-1.0, 1.0).acos().to_degrees())
}

/// Effective rank of `x` `[rows, dim]`: the exponential of the entropy of the centered rows' normalized singular
/// values.
///
/// From *The Effective Rank: A Measure of Effective Dimensionality* (Roy and Vetterli, 2007, EUSIPCO).
pub fn effective_rank(x: &Tensor) -> Result<f64> {
    let (_, s, _) = center(&to_f64(x)?)?.svd()?;
    let p = s.div(&s.sum()?.clamp_min(1e-300)?)?;
    Ok(p.mul(&p.clamp_min(1e-300)?.log()?)?.sum()?.neg()?.exp()?.to_f64()?)
}

/// Rank (from 1) of each query's own candidate in `scores` `[queries, candidates]`, where query i's is candidate i.
/// Ties count against the own candidate.
///
/// # Errors
/// When a score is NaN, which has no rank.
pub fn ranks(scores: &Tensor) -> Result<Vec<usize>> {
    let shape = scores.shape();
    if shape.len() != 2 || shape[0] > shape[1] {
        return Err(invalid(
            "ranks",
            format!("scores {shape:?}"),
            "[queries, candidates] with a candidate for each query",
        ));
    }
    check_not_nan("ranks", scores)?;
    let own = scores.diagonal()?.unsqueeze(1)?;
    let at_least = own.le(scores)?.to_dtype(DType::I64)?.sum_dim(&[1], false)?;
    Ok(at_least.to_vec::<i64>()?.into_iter().map(|r| r.max(1) as usize).collect())
}

/// A value with its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ConfidenceInterval {
    /// Point estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// Recall at `k` of `ranks`, with a percentile bootstrap interval of 1,000 seeded resamples of the queries.
pub fn recall_confidence_interval(ranks: &[usize], k: usize, seed: u64) -> ConfidenceInterval {
    let hits: Vec<f64> = ranks.iter().map(|r| f64::from(u8::from(*r <= k))).collect();
    let count = hits.len().max(1);
    let mut rng = Rng::new(&[seed, k as u64]);
    let mut resampled: Vec<f64> = (0..1000)
        .map(|_| (0..count).map(|_| hits.get(rng.below(count)).copied().unwrap_or(0.0)).sum::<f64>() / count as f64)
        .collect();
    resampled.sort_by(f64::total_cmp);
    ConfidenceInterval { value: hits.iter().sum::<f64>() / count as f64, low: resampled[25], high: resampled[974] }
}

/// Checks that embeddings `[rows, dim]` are paired, finite and of the same dimension.
///
/// # Errors
/// When they are not; the error names the first problem.
pub fn check_embeddings(a: &Tensor, b: &Tensor) -> Result<()> {
    check_paired("diagnose", &[a, b])?;
    if a.size(1)? != b.size(1)? {
        let found = format!("{:?} and {:?}", a.shape(), b.shape());
        return Err(invalid("diagnose", found, "embeddings of the same dimension (align them first: mm align)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_of_opposite_sets_is_two_and_of_equal_sets_zero() {
        let a = Tensor::from_vec(&[1f32, 0.0, 1.0, 0.0], &[2, 2]).unwrap();
        let opposite = modality_gap(&a, &a.neg().unwrap()).unwrap();
        assert!((opposite.centroid_distance - 2.0).abs() < 1e-9 && (opposite.alignment - 4.0).abs() < 1e-9);
        let equal = modality_gap(&a, &a).unwrap();
        assert!(equal.centroid_distance < 1e-9 && equal.alignment < 1e-9 && equal.uniformity.abs() < 1e-9);
    }

    #[test]
    fn ranks_intervals_and_dimensions_match_known_values() {
        let scores = Tensor::from_vec(&[0.9f64, 0.1, 0.5, 0.8, 0.7, 0.2, 0.9, 0.3, 0.6], &[3, 3]).unwrap();
        assert_eq!(ranks(&scores).unwrap(), [1, 2, 2]);
        // A score that is not a number would rank first, against any candidate.
        for position in [0, 1] {
            let mut values = [0.9f64, 0.1, 0.5, 0.8];
            values[2 + position] = f64::NAN;
            let error = ranks(&Tensor::from_vec(&values, &[2, 2]).unwrap()).unwrap_err().to_string();
            assert!(error.contains(&format!("NaN in row 1, column {position}")), "{error}");
        }
        let masked = Tensor::from_vec(&[0.9f64, f64::NEG_INFINITY, 0.1, f64::NEG_INFINITY], &[2, 2]).unwrap();
        assert_eq!(ranks(&masked).unwrap(), [1, 2]);
        assert!(ranks(&scores.narrow(1, 0, 2).unwrap()).is_err());
        let interval = recall_confidence_interval(&[1; 50], 1, 0);
        assert_eq!((interval.value, interval.low, interval.high), (1.0, 1.0, 1.0));
        let half: Vec<usize> = (0..400).map(|i| 1 + i % 2).collect();
        let interval = recall_confidence_interval(&half, 1, 0);
        assert!(interval.value == 0.5 && (0.43..0.47).contains(&interval.low) && (0.53..0.57).contains(&interval.high));
        mm_core::seed::manual_seed(1);
        let flat = Tensor::randn(&[500, 2], DType::F64, mm_core::Device::Cpu).unwrap().pad(&[0, 6], 0.0).unwrap();
        assert!((effective_rank(&flat).unwrap() - 2.0).abs() < 0.05);
        let cone = Tensor::from_vec(&[1f64, 1.0, 1.0, -1.0], &[2, 2]).unwrap();
        assert!((cone_angle(&cone).unwrap() - 45.0).abs() < 1e-9);
        assert!(
            check_embeddings(&flat, &flat.narrow(1, 0, 3).unwrap()).unwrap_err().to_string().contains("same dimension")
        );
    }
}
