//! Metrics of classification and multilabel classification, equal to scikit-learn's.

use super::{
    metric::Metrics,
    ranking::{auroc, mean},
};
use crate::{Error, Result};

/// Index of the greatest value; the first of equal ones.
pub fn argmax(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (index, v)| if *v > values[best] { index } else { best })
}

fn check_rows(kind: &str, predictions: usize, labels: usize) -> Result<()> {
    if predictions == 0 || predictions != labels {
        return Err(Error::Config(format!(
            "{kind} metrics: found {predictions} predictions and {labels} labels, expected as many of one as of the other, at least one"
        )));
    }
    Ok(())
}

/// Metrics of class probabilities `rows × classes`: accuracy, balanced accuracy, macro and weighted F1, AUROC (of the
/// second class where there are two, else the mean of one against the rest over the classes that occur), log-loss, and
/// the expected calibration error.
///
/// A label of `None` is a class that the model does not know: such a row counts as wrong and is left out of AUROC,
/// log-loss and calibration.
///
/// # Errors
/// When there are no rows, or not one label for each row.
pub fn classification_metrics(probabilities: &[Vec<f64>], labels: &[Option<usize>]) -> Result<Metrics> {
    check_rows("classification", probabilities.len(), labels.len())?;
    let rows = probabilities.len() as f64;
    let predicted: Vec<usize> = probabilities.iter().map(|p| argmax(p)).collect();
    let correct = predicted.iter().zip(labels).filter(|(p, l)| Some(**p) == **l).count();
    let per_class = ClassScores::new(&predicted, labels, probabilities[0].len());
    let mut metrics = Metrics::new();
    metrics.insert("accuracy", correct as f64 / rows);
    metrics.insert("balanced_accuracy", mean(&per_class.recall));
    metrics.insert("f1_macro", mean(&per_class.f1));
    metrics.insert("f1_weighted", per_class.f1_weighted);
    let known: Vec<(usize, usize)> = labels.iter().enumerate().filter_map(|(row, l)| Some((row, (*l)?))).collect();
    if !known.is_empty() {
        let loss: f64 = known.iter().map(|(row, l)| -probabilities[*row][*l].clamp(1e-15, 1.0).ln()).sum();
        metrics.insert("log_loss", loss / known.len() as f64);
        let confidences: Vec<(f64, bool)> =
            known.iter().map(|(row, l)| (probabilities[*row][predicted[*row]], predicted[*row] == *l)).collect();
        metrics.insert("expected_calibration_error", expected_calibration_error(&confidences));
    }
    let one_against_rest = |class: usize| -> Option<f64> {
        let scores: Vec<f64> = known.iter().map(|(row, _)| probabilities[*row][class]).collect();
        auroc(&scores, &known.iter().map(|(_, l)| *l == class).collect::<Vec<_>>())
    };
    let areas: Vec<f64> = match probabilities[0].len() {
        2 => one_against_rest(1).into_iter().collect(),
        classes => (0..classes).filter_map(one_against_rest).collect(),
    };
    if !areas.is_empty() {
        metrics.insert("auroc", mean(&areas));
    }
    Ok(metrics)
}

/// Recall and F1 of each class that occurs.
struct ClassScores {
    recall: Vec<f64>,
    f1: Vec<f64>,
    f1_weighted: f64,
}

impl ClassScores {
    fn new(predicted: &[usize], labels: &[Option<usize>], classes: usize) -> Self {
        let (mut recall, mut f1, mut weighted, mut total) = (Vec::new(), Vec::new(), 0.0, 0usize);
        for class in 0..classes {
            let actual = labels.iter().filter(|l| **l == Some(class)).count();
            let guessed = predicted.iter().filter(|p| **p == class).count();
            let hits = predicted.iter().zip(labels).filter(|(p, l)| **p == class && **l == Some(class)).count();
            if actual > 0 {
                recall.push(hits as f64 / actual as f64);
            }
            if actual + guessed > 0 {
                let value = 2.0 * hits as f64 / (actual + guessed) as f64;
                f1.push(value);
                weighted += value * actual as f64;
            }
            total += actual;
        }
        let unknown = labels.iter().filter(|l| l.is_none()).count();
        if unknown > 0 {
            // All unknown classes together are one class that is never predicted.
            recall.push(0.0);
            f1.push(0.0);
        }
        Self { recall, f1, f1_weighted: weighted / (total + unknown).max(1) as f64 }
    }
}

/// Metrics of independent label probabilities `rows × labels`: exact-match accuracy, macro and micro F1 at a threshold
/// of 0.5, Hamming loss, mean AUROC and log-loss.
///
/// # Errors
/// When there are no rows, or not one set of labels for each row.
pub fn multilabel_metrics(probabilities: &[Vec<f64>], labels: &[Vec<bool>]) -> Result<Metrics> {
    check_rows("multilabel", probabilities.len(), labels.len())?;
    let (rows, count) = (probabilities.len(), probabilities[0].len());
    let (mut f1, mut areas, mut hits, mut guessed, mut actual) = (Vec::new(), Vec::new(), 0usize, 0usize, 0usize);
    let (mut loss, mut wrong) = (0.0, 0usize);
    for label in 0..count {
        let scores: Vec<f64> = probabilities.iter().map(|p| p[label]).collect();
        let truth: Vec<bool> = labels.iter().map(|l| l[label]).collect();
        let pairs = || scores.iter().zip(&truth);
        let own_hits = pairs().filter(|(p, t)| **p >= 0.5 && **t).count();
        let own_guessed = pairs().filter(|(p, _)| **p >= 0.5).count();
        let own_actual = truth.iter().filter(|t| **t).count();
        let total = own_actual + own_guessed;
        f1.push(if total > 0 { 2.0 * own_hits as f64 / total as f64 } else { 0.0 });
        hits += own_hits;
        guessed += own_guessed;
        actual += own_actual;
        areas.extend(auroc(&scores, &truth));
        wrong += pairs().filter(|(p, t)| (**p >= 0.5) != **t).count();
        loss -= pairs().map(|(p, t)| if *t { *p } else { 1.0 - p }.clamp(1e-15, 1.0).ln()).sum::<f64>();
    }
    let exact = probabilities.iter().zip(labels).filter(|(p, l)| p.iter().zip(*l).all(|(p, l)| (*p >= 0.5) == *l));
    let cells = (rows * count).max(1) as f64;
    let mut metrics = Metrics::new();
    metrics.insert("accuracy", exact.count() as f64 / rows as f64);
    metrics.insert("f1_macro", mean(&f1));
    metrics.insert("f1_micro", 2.0 * hits as f64 / (guessed + actual).max(1) as f64);
    metrics.insert("hamming_loss", wrong as f64 / cells);
    metrics.insert("log_loss", loss / cells);
    if !areas.is_empty() {
        metrics.insert("auroc", mean(&areas));
    }
    Ok(metrics)
}

/// Expected calibration error over 15 equal bins of (confidence, whether the prediction is right). Source: *On
/// Calibration of Modern Neural Networks* (Guo et al., 2017, <https://arxiv.org/abs/1706.04599>).
fn expected_calibration_error(confidences: &[(f64, bool)]) -> f64 {
    const BINS: usize = 15;
    let mut bins = [(0.0, 0.0); BINS];
    for (confidence, right) in confidences {
        let (sum, correct) = &mut bins[((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1];
        *sum += confidence;
        *correct += f64::from(u8::from(*right));
    }
    bins.iter().map(|(sum, correct): &(f64, f64)| (sum - correct).abs()).sum::<f64>() / confidences.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_near(metrics: &Metrics, id: &str, expected: f64) {
        let found = metrics.get(id).unwrap();
        assert!((found - expected).abs() < 1e-9, "{id}: found {found}, expected {expected}");
    }

    #[test]
    fn classification_metrics_equal_scikit_learn() {
        // sklearn.metrics on y = [0, 1, 2, 1, 0] and these probabilities.
        let probabilities = vec![
            vec![0.7, 0.2, 0.1],
            vec![0.1, 0.6, 0.3],
            vec![0.2, 0.5, 0.3],
            vec![0.1, 0.8, 0.1],
            vec![0.4, 0.5, 0.1],
        ];
        let found = classification_metrics(&probabilities, &[Some(0), Some(1), Some(2), Some(1), Some(0)]).unwrap();
        assert_near(&found, "accuracy", 0.6);
        assert_near(&found, "balanced_accuracy", (0.5 + 1.0 + 0.0) / 3.0);
        assert_near(&found, "f1_macro", (2.0 / 3.0 + 2.0 / 3.0 + 0.0) / 3.0);
        assert_near(&found, "f1_weighted", (2.0 * 2.0 / 3.0 + 2.0 * 2.0 / 3.0) / 5.0);
        let loss = -(0.7f64.ln() + 0.6f64.ln() + 0.3f64.ln() + 0.8f64.ln() + 0.4f64.ln()) / 5.0;
        assert_near(&found, "log_loss", loss);
        assert_near(&found, "auroc", (1.0 + 1.0 + 0.875) / 3.0);
        let unknown = classification_metrics(&probabilities, &[Some(0), Some(1), None, Some(1), Some(0)]).unwrap();
        assert_near(&unknown, "accuracy", 0.6);
        assert!(classification_metrics(&probabilities, &[Some(0)]).is_err());
    }

    #[test]
    fn multilabel_metrics_equal_scikit_learn() {
        let found =
            multilabel_metrics(&[vec![0.9, 0.2], vec![0.4, 0.6]], &[vec![true, false], vec![true, true]]).unwrap();
        assert_near(&found, "accuracy", 0.5);
        assert_near(&found, "f1_micro", 0.8);
        assert_near(&found, "hamming_loss", 0.25);
    }
}
