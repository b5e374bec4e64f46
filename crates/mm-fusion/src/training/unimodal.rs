//! Labels of single modalities that nobody gave (Self-MM, Yu 2021): a row's answer as a whole may differ from what its voice alone says.
//! How far a representation lies from the middles of the positive and of the negative rows says where its own answer lies.

use crate::{Error, Result};
use mm_core::{DType, Tensor};

/// For each row how much nearer it lies to the middle of the positive rows than to that of the negative ones (the paper's equations 8 to
/// 11): `(D⁻ − D⁺) / D⁺` of features `[rows, width]` by the signs of `labels`. Zeros where one side has no row.
pub fn polarity(features: &Tensor, labels: &[f64]) -> Result<Vec<f64>> {
    let shape = features.shape();
    if shape.len() != 2 || shape[0] as usize != labels.len() || labels.iter().any(|l| !l.is_finite()) {
        let found = format!("features {shape:?} and {} labels", labels.len());
        return Err(Error::config("unimodal labels", found, "[rows, width] and a finite label a row"));
    }
    let x = features.to_dtype(DType::F64)?;
    let distance = |sign: f64| -> Result<Option<Tensor>> {
        let own: Vec<i64> = (0..labels.len() as i64).filter(|n| labels[*n as usize] * sign > 0.0).collect();
        if own.is_empty() {
            return Ok(None);
        }
        let middle = x.index_select(0, &Tensor::from_slice(&own)?.to_device(x.device())?)?.mean_dim(&[0], true)?;
        let off = x.sub(&middle)?.pow(2.0)?.sum_dim(&[1], false)?.mul_scalar(1.0 / (shape[1] as f64).sqrt())?;
        Ok(Some(off))
    };
    let (Some(positive), Some(negative)) = (distance(1.0)?, distance(-1.0)?) else {
        return Ok(vec![0.0; labels.len()]);
    };
    Ok(negative.sub(&positive)?.div(&positive.add_scalar(1e-6)?)?.to_vec()?)
}

/// A modality's own labels after the `update`th update (from 1 on): the labels of the whole moved by how differently the modality's
/// representation and the fused one lie (the mean of the paper's ratio and difference, equations 12 to 14), at most `most` away from zero,
/// and averaged with those before, the later the less (equation 15).
pub fn unimodal_labels(
    labels: &[f64],
    fused: &[f64],
    own: &[f64],
    before: &[f64],
    most: f64,
    update: u64,
) -> Result<Vec<f64>> {
    if [fused.len(), own.len(), before.len()].iter().any(|n| *n != labels.len()) || update == 0 {
        let found = format!(
            "{} labels, {}, {} and {} numbers, update {update}",
            labels.len(),
            fused.len(),
            own.len(),
            before.len()
        );
        return Err(Error::config("unimodal labels", found, "as many of each, updates counted from 1"));
    }
    let n = update as f64;
    let one = |place: usize| {
        let (label, whole, alone) = (labels[place], fused[place], own[place]);
        // A fused representation right in the middle says nothing that a ratio could be taken to.
        let ratio = if whole.abs() > 1e-6 { alone / whole * label } else { label };
        let moved = (0.5 * ratio + 0.5 * (label + alone - whole)).clamp(-most, most);
        (n - 1.0) / (n + 1.0) * before[place] + 2.0 / (n + 1.0) * moved
    };
    Ok((0..labels.len()).map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voice_that_sounds_otherwise_than_the_whole_gets_a_label_of_its_own() {
        // Rows 0 to 3 positive, 4 to 7 negative as a whole; the voice of row 3 lies among the negative ones. One number has a side, the
        // others are each row's own, so that all rows lie about as far from both middles.
        let labels = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0];
        let features = |sides: [f32; 8]| {
            let row = |n: usize| std::iter::once(sides[n]).chain((0..8).map(move |m| f32::from(u8::from(m == n))));
            Tensor::from_vec(&(0..8).flat_map(row).collect::<Vec<f32>>(), &[8, 9]).unwrap()
        };
        let fused = polarity(&features([0.3, 0.25, 0.35, 0.3, -0.3, -0.25, -0.35, -0.3]), &labels).unwrap();
        let voice = polarity(&features([0.3, 0.25, 0.35, -0.3, -0.3, -0.25, -0.35, -0.3]), &labels).unwrap();
        assert!(fused[3] > 1.0 && voice[3] < 0.5 && voice[0] > 1.0);
        let own = unimodal_labels(&labels, &fused, &voice, &labels, 1.0, 1).unwrap();
        assert!(own[3] < 0.3, "{own:?}");
        assert!(own[..3].iter().all(|l| *l > 0.9) && own[4..].iter().all(|l| *l < -0.9), "{own:?}");
        // The first update takes the new ones alone, the third half of them: 2/4.
        let third = unimodal_labels(&labels, &fused, &voice, &labels, 1.0, 3).unwrap();
        assert!((third[3] - (0.5 * labels[3] + 0.5 * own[3])).abs() < 1e-12);
        // By hand: D+ = (0 - 1)^2, D- = (0 + 3)^2 over sqrt(1), so (9 - 1) / 1.
        let hand = polarity(&Tensor::from_vec(&[0f32, 1.0, -3.0], &[3, 1]).unwrap(), &[0.0, 1.0, -1.0]).unwrap();
        assert!((hand[0] - 8.0).abs() < 1e-4, "{hand:?}");
        assert_eq!(polarity(&features([0.1; 8]), &[1.0; 8]).unwrap(), [0.0; 8]);
        assert!(
            polarity(&features([0.1; 8]), &[1.0; 3]).is_err()
                && unimodal_labels(&labels, &fused, &voice, &labels, 1.0, 0).is_err()
        );
    }
}
