//! Attention as alignment: which region of a picture a word is about, and how well a picture and a text go together by that (SCAN, Lee
//! 2018: stacked cross attention, both ways, with the hardest negatives).

use crate::{Result, correlation::wrong};
use mm_core::{DType, Features, Tensor};
use serde::{Deserialize, Serialize};

/// How the agreement of each query becomes one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// Mean over the queries.
    #[default]
    Mean,
    /// Logarithm of the sum of exponentials, at this sharpness times ten: the best queries count most.
    LogSumExp,
}

/// Stacked cross attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StackedAttention {
    /// What cosines are multiplied by before the softmax over the keys (9 for words looking at regions in the paper).
    pub sharpness: f64,
    /// How queries are pooled.
    pub pooling: Pooling,
    /// Margin to the hardest negative.
    pub margin: f64,
    /// Whether each key's scores are brought to unit length over the queries before the softmax, as in the paper. A key that no query is
    /// about then counts as much as one that a query is: with few queries maps are sharper without.
    pub level: bool,
}

impl Default for StackedAttention {
    fn default() -> Self {
        Self { sharpness: 9.0, pooling: Pooling::Mean, margin: 0.2, level: true }
    }
}

/// What one set of queries finds in one set of keys.
#[derive(Debug, Clone)]
pub struct Attended {
    /// `[queries' rows, keys' rows]`: how well each row of queries goes with each row of keys.
    pub agreement: Tensor,
    /// `[rows, queries, keys]`: of row i with row i, where each query looks; sums to one over the keys.
    pub map: Tensor,
}

impl StackedAttention {
    /// Every row of queries against every row of keys: `[rows, length, width]` each, masked positions neither look nor are seen. Memory is
    /// `rows · rows · queries · keys`.
    pub fn attend(&self, queries: &Features, keys: &Features) -> Result<Attended> {
        let (q, k) = (queries.values.normalize()?, keys.values.normalize()?);
        let (rows, length, width) = (q.size(0)?, q.size(1)?, q.size(2)?);
        let (others, seen) = (k.size(0)?, k.size(1)?);
        if width != k.size(2)? {
            return Err(wrong("stacked attention", format!("widths {width} and {}", k.size(2)?), "one width"));
        }
        // [rows, others, queries, keys]
        let cosines = q
            .reshape(&[rows * length, width])?
            .matmul(&k.reshape(&[others * seen, width])?.transpose(0, 1)?)?
            .reshape(&[rows, length, others, seen])?
            .permute(&[0, 2, 1, 3])?;
        // Negative cosines count nothing.
        let mut scores = cosines.relu()?;
        if let Some(mask) = &queries.mask {
            scores = scores.mul(&mask.to_dtype(DType::F32)?.reshape(&[rows, 1, length, 1])?)?;
        }
        if self.level {
            scores = scores.div(&scores.pow(2.0)?.sum_dims(&[2], true)?.add_scalar(1e-8)?.sqrt()?)?;
        }
        scores = scores.mul_scalar(self.sharpness)?;
        if let Some(mask) = &keys.mask {
            let hidden = mask.logical_not()?.reshape(&[1, others, 1, seen])?;
            scores = scores.masked_fill(&hidden, scores.dtype()?.mask_value())?;
        }
        let weights = scores.softmax(3)?; // [rows, others, queries, keys]
        let found = weights.matmul(&k.unsqueeze(0)?)?; // [rows, others, queries, width]
        let each = found.normalize()?.mul(&q.unsqueeze(1)?)?.sum_dims(&[3], false)?; // [rows, others, queries]
        let there = match &queries.mask {
            Some(mask) => mask.to_dtype(DType::F32)?,
            None => Tensor::ones(&[rows, length], DType::F32, q.device())?,
        }
        .unsqueeze(1)?; // [rows, 1, queries]
        let agreement = match self.pooling {
            Pooling::Mean => {
                each.mul(&there)?.sum_dims(&[2], false)?.div(&there.sum_dims(&[2], false)?.clamp_min(1.0)?)?
            }
            Pooling::LogSumExp => {
                let sharp = 10.0 * self.sharpness.max(1e-6) / 9.0;
                let lost = there.eq_scalar(0.0)?;
                each.mul_scalar(sharp)?.masked_fill(&lost, -1e9)?.logsumexp(2)?.mul_scalar(1.0 / sharp)?
            }
        };
        let own: Vec<Tensor> =
            (0..rows.min(others)).map(|r| Ok(weights.select(0, r)?.select(0, r)?)).collect::<Result<_>>()?;
        Ok(Attended { agreement, map: Tensor::stack(&own.iter().collect::<Vec<_>>(), 0)? })
    }
}

/// Hinge loss with the hardest negatives (VSE++) on agreements `[rows, rows]` whose diagonal belongs together.
fn hinge(agreement: &Tensor, margin: f64) -> Result<Tensor> {
    let rows = agreement.size(0)?;
    let own = agreement.diagonal()?;
    let others = agreement.masked_fill(&Tensor::eye(rows, DType::Bool, agreement.device())?, -1e9)?;
    let cost = |hardest: Tensor| -> Result<Tensor> { Ok(hardest.sub(&own)?.add_scalar(margin)?.relu()?.mean()?) };
    Ok(cost(others.max_dim(1, false)?)?.add(&cost(others.max_dim(0, false)?)?)?)
}

impl StackedAttention {
    /// Loss of `a` attending to `b` and `b` to `a`, and the attention map of `a` over `b`.
    pub fn align(&self, a: &Features, b: &Features) -> Result<(Tensor, Tensor)> {
        let (forth, back) = (self.attend(a, b)?, self.attend(b, a)?);
        let both = forth.agreement.add(&back.agreement.transpose(0, 1)?)?.mul_scalar(0.5)?;
        Ok((hinge(&both, self.margin)?, forth.map))
    }
}

/// How far a map `[rows, queries, keys]` is from where it is known to belong (`target`, rows summing to one): cross-entropy over the
/// queries that `known` `[rows, queries]` names (supervised attention, Liu 2017).
pub fn supervise(map: &Tensor, target: &Tensor, known: &Tensor) -> Result<Tensor> {
    let each = map.clamp_min(1e-9)?.log()?.mul(target)?.sum_dims(&[2], false)?.neg()?; // [rows, queries]
    let known = known.to_dtype(DType::F32)?;
    Ok(each.mul(&known)?.sum()?.div(&known.sum()?.clamp_min(1.0)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
    }

    #[test]
    fn each_word_looks_at_its_region_and_padding_changes_nothing() {
        manual_seed(1);
        // Regions nearly at right angles, so that whatever is drawn each has one word: scores are shared out among the words, and a region
        // that no word belongs to would draw whichever came nearest.
        let apart = Tensor::eye(8, DType::F32, Device::Cpu).unwrap().reshape(&[2, 4, 8]).unwrap();
        let jitter = Tensor::rand(&[2, 4, 8], DType::F32, Device::Cpu).unwrap().mul_scalar(0.1).unwrap();
        let regions = apart.add(&jitter).unwrap();
        // Each text is its picture's regions in another order, the last place padding.
        let order = Tensor::from_slice(&[2i64, 0, 3, 1]).unwrap();
        let words = regions.index_select(1, &order).unwrap();
        let padded = Tensor::cat(&[&words, &randn(&[2, 1, 8])], 1).unwrap();
        let mask = Tensor::from_vec(&[true, true, true, true, false, true, true, true, true, false], &[2, 5]).unwrap();
        let attention = StackedAttention { sharpness: 40.0, ..StackedAttention::default() };
        let pictures = Features::new(regions, None).unwrap();
        let found = attention.attend(&Features::new(words.clone(), None).unwrap(), &pictures).unwrap();
        assert_eq!(found.map.argmax(2).unwrap().to_vec::<i64>().unwrap(), [2, 0, 3, 1, 2, 0, 3, 1]);
        let sums = found.map.sum_dims(&[2], false).unwrap().to_vec::<f32>().unwrap();
        assert!(sums.iter().all(|s| (s - 1.0).abs() < 1e-5));
        let other = attention.attend(&Features::new(padded.clone(), Some(mask.clone())).unwrap(), &pictures).unwrap();
        let off = found.agreement.sub(&other.agreement).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        assert!(off < 1e-4, "{off}");
        let agreement = found.agreement.to_vec::<f32>().unwrap();
        assert!(agreement[0] > agreement[1] && agreement[3] > agreement[2]);
        let back = attention.attend(&pictures, &Features::new(padded, Some(mask)).unwrap()).unwrap();
        assert!(back.map.select(2, 4).unwrap().max().unwrap().to_f64().unwrap() < 1e-6);
        let target = found.map.argmax(2).unwrap().one_hot(4).unwrap().to_dtype(DType::F32).unwrap();
        let known = Tensor::ones(&[2, 4], DType::F32, Device::Cpu).unwrap();
        assert!(supervise(&found.map, &target, &known).unwrap().to_f64().unwrap() < 0.2);
        let loss = attention.align(&Features::new(words, None).unwrap(), &pictures).unwrap().0.to_f64().unwrap();
        assert!((0.0..0.4).contains(&loss));
    }
}
