//! Generated unimodal labels for self-supervised multi-task learning (Self-MM), since one modality alone may express
//! something else than the row's label.
//!
//! *Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for Multimodal Sentiment
//! Analysis* (Yu et al., 2021, <https://arxiv.org/abs/2102.04830>).

use crate::{Error, Result};
use mm_core::{DType, Tensor};

/// Relative distance of each row of `features` `[rows, dim]` to the centroids of the positive and negative rows (by the
/// signs of `labels`), `(D⁻ − D⁺) / D⁺` (equations 8 to 11). Zeros where there are no positive or no negative rows.
///
/// # Errors
/// When the numbers of rows and labels differ, or a label is not finite.
pub fn polarity(features: &Tensor, labels: &[f64]) -> Result<Vec<f64>> {
    let shape = features.shape();
    if shape.len() != 2 || shape[0] as usize != labels.len() || labels.iter().any(|l| !l.is_finite()) {
        let found = format!("features {shape:?} and {} labels", labels.len());
        return Err(Error::config("unimodal labels", found, "[rows, dim] and a finite label per row"));
    }
    let x = features.to_dtype(DType::F64)?;
    let distance = |sign: f64| -> Result<Option<Tensor>> {
        let own: Vec<i64> = (0..labels.len() as i64).filter(|n| labels[*n as usize] * sign > 0.0).collect();
        if own.is_empty() {
            return Ok(None);
        }
        let centroid = x.index_select(0, &Tensor::from_slice(&own)?.to_device(x.device())?)?.mean_dim(&[0], true)?;
        let squared = x.sub(&centroid)?.pow(2.0)?.sum_dim(&[1], false)?.mul_scalar(1.0 / (shape[1] as f64).sqrt())?;
        Ok(Some(squared))
    };
    let (Some(positive), Some(negative)) = (distance(1.0)?, distance(-1.0)?) else {
        return Ok(vec![0.0; labels.len()]);
    };
    Ok(negative.sub(&positive)?.div(&positive.add_scalar(1e-6)?)?.to_vec()?)
}

/// A modality's generated labels after update number `update` (from 1). The multimodal `labels` are shifted by how the
/// [`polarity`] of the unimodal representation (`unimodal`) differs from that of the fused one (`fused`): the mean of
/// ratio and difference, equations 12 to 14. The result is clamped to ±`max_label` and averaged with the labels of the
/// update before (`previous`) with decreasing weight, equation 15. All slices have one value per row.
///
/// # Errors
/// When the lengths differ or `update` is 0.
pub fn unimodal_labels(
    labels: &[f64],
    fused: &[f64],
    unimodal: &[f64],
    previous: &[f64],
    max_label: f64,
    update: u64,
) -> Result<Vec<f64>> {
    if [fused.len(), unimodal.len(), previous.len()].iter().any(|n| *n != labels.len()) || update == 0 {
        let found = format!(
            "{} labels, {}, {} and {} values, update {update}",
            labels.len(),
            fused.len(),
            unimodal.len(),
            previous.len()
        );
        return Err(Error::config("unimodal labels", found, "the same number of each, updates counted from 1"));
    }
    let n = update as f64;
    let one = |index: usize| {
        let (label, fused_value, unimodal_value) = (labels[index], fused[index], unimodal[index]);
        // A fused polarity of zero has no ratio.
        let ratio = if fused_value.abs() > 1e-6 { unimodal_value / fused_value * label } else { label };
        let shifted = (0.5 * ratio + 0.5 * (label + unimodal_value - fused_value)).clamp(-max_label, max_label);
        (n - 1.0) / (n + 1.0) * previous[index] + 2.0 / (n + 1.0) * shifted
    };
    Ok((0..labels.len()).map(one).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_whose_audio_contradicts_its_label_gets_another_unimodal_label() {
        // Rows 0 to 3 are positive, 4 to 7 negative; the audio of row 3 lies among the negative ones. Only the first
        // column depends on the class, the others are one-hot per row, so that all rows are about equally far from both
        // centroids.
        let labels = [1.0, 1.0, 1.0, 1.0, -1.0, -1.0, -1.0, -1.0];
        let features = |first_column: [f32; 8]| {
            let row =
                |n: usize| std::iter::once(first_column[n]).chain((0..8).map(move |m| f32::from(u8::from(m == n))));
            Tensor::from_vec(&(0..8).flat_map(row).collect::<Vec<f32>>(), &[8, 9]).unwrap()
        };
        let fused = polarity(&features([0.3, 0.25, 0.35, 0.3, -0.3, -0.25, -0.35, -0.3]), &labels).unwrap();
        let audio = polarity(&features([0.3, 0.25, 0.35, -0.3, -0.3, -0.25, -0.35, -0.3]), &labels).unwrap();
        assert!(fused[3] > 1.0 && audio[3] < 0.5 && audio[0] > 1.0);
        let own = unimodal_labels(&labels, &fused, &audio, &labels, 1.0, 1).unwrap();
        assert!(own[3] < 0.3, "{own:?}");
        assert!(own[..3].iter().all(|l| *l > 0.9) && own[4..].iter().all(|l| *l < -0.9), "{own:?}");
        // The first update takes the new ones alone, the third half of them: 2/4.
        let third = unimodal_labels(&labels, &fused, &audio, &labels, 1.0, 3).unwrap();
        assert!((third[3] - (0.5 * labels[3] + 0.5 * own[3])).abs() < 1e-12);
        // By hand: D+ = (0 - 1)^2, D- = (0 + 3)^2 over sqrt(1), so (9 - 1) / 1.
        let hand = polarity(&Tensor::from_vec(&[0f32, 1.0, -3.0], &[3, 1]).unwrap(), &[0.0, 1.0, -1.0]).unwrap();
        assert!((hand[0] - 8.0).abs() < 1e-4, "{hand:?}");
        assert_eq!(polarity(&features([0.1; 8]), &[1.0; 8]).unwrap(), [0.0; 8]);
        assert!(
            polarity(&features([0.1; 8]), &[1.0; 3]).is_err()
                && unimodal_labels(&labels, &fused, &audio, &labels, 1.0, 0).is_err()
        );
    }
}
