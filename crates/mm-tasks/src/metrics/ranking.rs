//! Metrics that are computed from ranks: the area under the ROC curve and correlations.

/// Area under the ROC curve of scores, as `sklearn.metrics.roc_auc_score`: the probability that a random positive
/// scores higher than a random negative, ties counting half. `None` when only one of the two classes is present.
pub fn auroc(scores: &[f64], positive: &[bool]) -> Option<f64> {
    let num_positive = positive.iter().filter(|p| **p).count() as f64;
    let num_negative = positive.len() as f64 - num_positive;
    if num_positive == 0.0 || num_negative == 0.0 {
        return None;
    }
    let sum: f64 = ranks(scores).iter().zip(positive).filter(|(_, p)| **p).map(|(r, _)| r).sum();
    Some((sum - num_positive * (num_positive + 1.0) / 2.0) / (num_positive * num_negative))
}

/// Ranks from 1; ties share the mean of their ranks.
pub(super) fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        for index in &order[start..end] {
            ranks[*index] = (start + 1 + end) as f64 / 2.0;
        }
        start = end;
    }
    ranks
}

/// Pearson's correlation; `None` when either variable is constant.
pub(super) fn pearson(a: &[f64], b: &[f64]) -> Option<f64> {
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - mean_a) * (y - mean_b);
        aa += (x - mean_a).powi(2);
        bb += (y - mean_b).powi(2);
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

/// The mean; 0 of no values.
pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auroc_counts_ties_half_and_needs_both_classes() {
        // sklearn.metrics.roc_auc_score([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) = 0.75
        assert_eq!(auroc(&[0.1, 0.4, 0.35, 0.8], &[false, false, true, true]), Some(0.75));
        assert_eq!(auroc(&[0.5, 0.5], &[false, true]), Some(0.5));
        assert!(auroc(&[0.3], &[true]).is_none());
    }
}
