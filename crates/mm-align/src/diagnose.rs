//! Whether two modalities share a space: the gap between them (Liang 2022), alignment and uniformity (Wang 2020), hubs (Radovanović 2010),
//! effective rank (Roy 2007); and the cures, each a change of the scores by which one finds the other.

use crate::{
    Error, Result,
    correlation::{check, wide, wrong},
    transport::csls,
};
use mm_core::{DType, Tensor, seed::Rng};

/// What [`gap`] finds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// Distance of the two modalities' centres on the unit sphere: 0 when they lie together, up to 2.
    pub centroid_distance: f64,
    /// Mean squared distance of partners.
    pub alignment: f64,
    /// Logarithm of the mean Gaussian potential of all pairs of both, scale 2: lower is more evenly spread.
    pub uniformity: f64,
}

/// The gap between embeddings `[rows, width]` whose rows belong together.
pub fn gap(a: &Tensor, b: &Tensor) -> Result<Gap> {
    if a.shape() != b.shape() || a.rank() != 2 || a.size(0)? < 2 {
        return Err(Error::Features {
            what: "gap",
            found: format!("{:?} and {:?}", a.shape(), b.shape()),
            wanted: "two sets [rows, width] of one shape with at least two rows".into(),
        });
    }
    let (a, b) = (a.normalize()?.to_dtype(DType::F64)?, b.normalize()?.to_dtype(DType::F64)?);
    let centre = |x: &Tensor| x.mean_dims(&[0], false);
    let apart = a.sub(&b)?.pow(2.0)?.sum_dims(&[1], false)?;
    let both = Tensor::cat(&[&a, &b], 0)?;
    let rows = both.size(0)?;
    // On the unit sphere the squared distance is 2 − 2 cos.
    let squared = both.matmul(&both.transpose(0, 1)?)?.mul_scalar(-2.0)?.add_scalar(2.0)?;
    let potential = squared.mul_scalar(-2.0)?.exp()?;
    let off_diagonal =
        (potential.sum()?.to_f64()? - potential.diagonal()?.sum()?.to_f64()?) / (rows * (rows - 1)) as f64;
    Ok(Gap {
        centroid_distance: centre(&a)?.sub(&centre(&b)?)?.norm(-1, false)?.to_f64()?,
        alignment: apart.mean()?.to_f64()?,
        uniformity: off_diagonal.ln(),
    })
}

/// How narrow the cone is that each modality lies in: the mean cosine of its rows with its centre, as an angle in degrees.
pub fn cone_angle(x: &Tensor) -> Result<f64> {
    let unit = wide(x)?.normalize()?;
    let centre = unit.mean_dims(&[0], true)?.normalize()?;
    Ok(unit.mul(&centre)?.sum_dims(&[1], false)?.mean()?.to_f64()?.clamp(-1.0, 1.0).acos().to_degrees())
}

/// Number of dimensions that a set really fills: exp of the entropy of its singular values' shares, of centred rows.
pub fn effective_rank(x: &Tensor) -> Result<f64> {
    let x = wide(x)?;
    let (_, s, _) = x.sub(&x.mean_dims(&[0], true)?)?.svd()?;
    let share = s.div(&s.sum()?.clamp_min(1e-300)?)?;
    Ok(share.mul(&share.clamp_min(1e-300)?.log()?)?.sum()?.neg()?.exp()?.to_f64()?)
}

/// Hubs among candidates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hubness {
    /// Skewness of how often each candidate is among the `k` nearest of a query: 0 when none is favoured; above 1 there are hubs.
    pub skewness: f64,
    /// Share of candidates that are among nobody's nearest.
    pub orphans: f64,
    /// How often the worst hub is.
    pub most: usize,
}

/// Hubs of scores `[queries, candidates]`, among each query's `k` best.
pub fn hubness(scores: &Tensor, k: i64) -> Result<Hubness> {
    let candidates = scores.size(1)?;
    let (_, near) = scores.topk(k.clamp(1, candidates))?;
    let mut counts = vec![0usize; candidates as usize];
    near.to_vec::<i64>()?.iter().for_each(|c| counts[*c as usize] += 1);
    let count = counts.len() as f64;
    let mean = counts.iter().sum::<usize>() as f64 / count;
    let moment = |p: i32| counts.iter().map(|c| (*c as f64 - mean).powi(p)).sum::<f64>() / count;
    Ok(Hubness {
        skewness: moment(3) / moment(2).powf(1.5).max(1e-12),
        orphans: counts.iter().filter(|c| **c == 0).count() as f64 / count,
        most: counts.iter().copied().max().unwrap_or(0),
    })
}

/// A figure with its 95 % confidence interval over queries.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The figure.
    pub value: f64,
    /// Where the interval begins.
    pub low: f64,
    /// Where it ends.
    pub high: f64,
}

/// Rank of each query's own candidate (row i's is i) in scores `[queries, candidates]`, from 1; ties count against it.
pub fn ranks(scores: &Tensor) -> Result<Vec<usize>> {
    let own = scores.diagonal()?.unsqueeze(1)?;
    let better = own.le(scores)?.to_dtype(DType::I64)?.sum_dims(&[1], false)?;
    Ok(better.to_vec::<i64>()?.into_iter().map(|r| r.max(1) as usize).collect())
}

/// Share of ranks of at most `k`, its interval by a thousand seeded bootstraps.
pub fn recall_interval(ranks: &[usize], k: usize, seed: u64) -> Interval {
    let hits: Vec<f64> = ranks.iter().map(|r| f64::from(u8::from(*r <= k))).collect();
    let count = hits.len().max(1);
    let mut random = Rng::at(&[seed, k as u64]);
    let mut drawn: Vec<f64> = (0..1000)
        .map(|_| (0..count).map(|_| hits.get(random.below(count)).copied().unwrap_or(0.0)).sum::<f64>() / count as f64)
        .collect();
    drawn.sort_by(f64::total_cmp);
    Interval { value: hits.iter().sum::<f64>() / count as f64, low: drawn[25], high: drawn[974] }
}

/// What mends the scores of `[rows, width]` embeddings whose rows belong together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cure {
    /// Plain cosines.
    None,
    /// Each modality's centre taken off first.
    MeanCentring,
    /// Less the mean of each side's so many nearest (Conneau 2018).
    Csls(i64),
    /// A softmax over the *queries*: a candidate that all ask for answers none (Smith 2017), at this sharpness.
    InvertedSoftmax(f64),
    /// The same by a bank of other queries, so that one query at a time can be asked (QB-Norm, Bogolin 2022); candidates that are no hub of
    /// the bank keep their cosine.
    QueryBank(f64),
}

impl Cure {
    /// The cures with usual settings.
    pub const ALL: [Self; 5] =
        [Self::None, Self::MeanCentring, Self::Csls(10), Self::InvertedSoftmax(20.0), Self::QueryBank(20.0)];

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::MeanCentring => "mean centring",
            Self::Csls(_) => "CSLS",
            Self::InvertedSoftmax(_) => "inverted softmax",
            Self::QueryBank(_) => "query bank",
        }
    }

    /// Scores `[queries, candidates]`; `bank` are other queries (training rows), for [`Cure::QueryBank`], and the queries themselves when
    /// absent. The centre of [`Cure::MeanCentring`] is that of the rows at hand.
    pub fn scores(&self, queries: &Tensor, candidates: &Tensor, bank: Option<&Tensor>) -> Result<Tensor> {
        let cosines = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
            Ok(wide(a)?.normalize()?.matmul(&wide(b)?.normalize()?.transpose(0, 1)?)?)
        };
        if queries.size(-1)? != candidates.size(-1)? {
            let found = format!("{:?} and {:?}", queries.shape(), candidates.shape());
            return Err(wrong("scores", found, "embeddings of one width"));
        }
        match self {
            Self::None => cosines(queries, candidates),
            Self::MeanCentring => {
                let level = |x: &Tensor| -> Result<Tensor> {
                    let x = wide(x)?.normalize()?;
                    Ok(x.sub(&x.mean_dims(&[0], true)?)?)
                };
                cosines(&level(queries)?, &level(candidates)?)
            }
            Self::Csls(k) => csls(&cosines(queries, candidates)?, *k),
            Self::InvertedSoftmax(sharpness) => {
                let sharp = cosines(queries, candidates)?.mul_scalar(*sharpness)?;
                Ok(sharp.sub(&sharp.logsumexp(0)?.unsqueeze(0)?)?)
            }
            Self::QueryBank(sharpness) => {
                let own = cosines(queries, candidates)?;
                let banked = cosines(bank.unwrap_or(queries), candidates)?; // [bank, candidates]
                let mass = banked.mul_scalar(*sharpness)?.logsumexp(0)?;
                // Only what some query of the bank likes best is a hub.
                let mut hub = vec![0f64; candidates.size(0)? as usize];
                banked.argmax(1)?.to_vec::<i64>()?.iter().for_each(|c| hub[*c as usize] = 1.0);
                let hub = Tensor::from_slice(&hub)?.to_device(own.device())?;
                // Every query's best is looked at: where it is a hub the query is normalised, else it keeps its cosines.
                let best = own.argmax(1)?;
                let touched = hub.index_select(0, &best)?.unsqueeze(1)?.gt_scalar(0.5)?;
                let normal = own.mul_scalar(*sharpness)?.sub(&mass.unsqueeze(0)?)?;
                Ok(normal.where_cond(&touched, &own)?)
            }
        }
    }
}

/// Everything about embeddings `[rows, width]` whose rows belong together, checked first.
pub fn checked(a: &Tensor, b: &Tensor) -> Result<()> {
    check("diagnose", &[a, b])?;
    if a.size(1)? != b.size(1)? {
        let found = format!("{:?} and {:?}", a.shape(), b.shape());
        return Err(wrong("diagnose", found, "embeddings of one width (align them first: mm align)"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opposite_sets_are_two_apart_and_equal_ones_not_at_all() {
        let a = Tensor::from_vec(&[1f32, 0.0, 1.0, 0.0], &[2, 2]).unwrap();
        let far = gap(&a, &a.neg().unwrap()).unwrap();
        assert!((far.centroid_distance - 2.0).abs() < 1e-9 && (far.alignment - 4.0).abs() < 1e-9);
        let near = gap(&a, &a).unwrap();
        assert!(near.centroid_distance < 1e-9 && near.alignment < 1e-9 && near.uniformity.abs() < 1e-9);
    }

    #[test]
    fn hubs_ranks_and_ranks_of_spaces_are_counted_right() {
        let scores = Tensor::from_vec(&[0.9f64, 0.1, 0.5, 0.8, 0.7, 0.2, 0.9, 0.3, 0.6], &[3, 3]).unwrap();
        let hubs = hubness(&scores, 1).unwrap();
        assert_eq!((hubs.most, hubs.orphans), (3, 2.0 / 3.0));
        assert!((hubs.skewness - std::f64::consts::FRAC_1_SQRT_2).abs() < 1e-6);
        assert_eq!(ranks(&scores).unwrap(), [1, 2, 2]);
        let interval = recall_interval(&[1; 50], 1, 0);
        assert_eq!((interval.value, interval.low, interval.high), (1.0, 1.0, 1.0));
        let half: Vec<usize> = (0..400).map(|i| 1 + i % 2).collect();
        let interval = recall_interval(&half, 1, 0);
        assert!(interval.value == 0.5 && (0.43..0.47).contains(&interval.low) && (0.53..0.57).contains(&interval.high));
        mm_core::seed::manual_seed(1);
        let flat = Tensor::randn(&[500, 2], DType::F64, mm_core::Device::Cpu).unwrap().pad(&[0, 6], 0.0).unwrap();
        assert!((effective_rank(&flat).unwrap() - 2.0).abs() < 0.05);
        let cone = Tensor::from_vec(&[1f64, 1.0, 1.0, -1.0], &[2, 2]).unwrap();
        assert!((cone_angle(&cone).unwrap() - 45.0).abs() < 1e-9);
    }

    #[test]
    fn cures_bring_back_what_a_shift_and_a_hub_took() {
        mm_core::seed::manual_seed(2);
        let a = Tensor::randn(&[60, 8], DType::F64, mm_core::Device::Cpu).unwrap();
        let noise = Tensor::randn(&[60, 8], DType::F64, mm_core::Device::Cpu).unwrap().mul_scalar(0.6).unwrap();
        let b = a.add(&noise).unwrap();
        let shift = Tensor::from_slice(&[3f64, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]).unwrap();
        let (a, b) = (a.add(&shift).unwrap(), b.sub(&shift).unwrap());
        let recall = |cure: Cure| recall_interval(&ranks(&cure.scores(&a, &b, None).unwrap()).unwrap(), 1, 0).value;
        let plain = recall(Cure::None);
        for cure in Cure::ALL.into_iter().skip(1) {
            assert!(recall(cure) > plain, "{}: {} after {plain}", cure.name(), recall(cure));
        }
        assert!(checked(&a, &a.narrow(1, 0, 3).unwrap()).unwrap_err().to_string().contains("one width"));
    }
}
