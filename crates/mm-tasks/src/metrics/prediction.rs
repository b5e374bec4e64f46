//! Figures of predictions: of classes, of sets of labels, of numbers; equal to scikit-learn's where it has them.

use crate::{Error, Result};
use std::collections::BTreeMap;

/// Figures by name.
pub type Figures = BTreeMap<String, f64>;

/// Of class probabilities `rows × classes` and the right classes: accuracy, balanced accuracy, macro and weighted F1, AUROC (of the second
/// class where there are two, else the mean of one against the rest over the classes that rows have), log-loss, and expected calibration
/// error over 15 bins (Guo 2017). A right class of `None` was not known to the model: such a row counts as wrong and is left out of AUROC,
/// log-loss and calibration.
pub fn classes(probabilities: &[Vec<f64>], truth: &[Option<usize>]) -> Result<Figures> {
    let rows = probabilities.len();
    if rows == 0 || rows != truth.len() {
        return Err(Error::Config(format!("figures of classes: found {rows} predictions and {} labels", truth.len())));
    }
    let count = probabilities[0].len();
    let guess: Vec<usize> = probabilities.iter().map(|p| best(p)).collect();
    let right = guess.iter().zip(truth).filter(|(g, t)| Some(**g) == **t).count();
    let (mut recalls, mut f1, mut weighted, mut seen) = (Vec::new(), Vec::new(), 0.0, 0usize);
    let unknown = truth.iter().filter(|t| t.is_none()).count();
    for class in 0..count {
        let own = truth.iter().filter(|t| **t == Some(class)).count();
        let said = guess.iter().filter(|g| **g == class).count();
        let hit = guess.iter().zip(truth).filter(|(g, t)| **g == class && **t == Some(class)).count();
        if own > 0 {
            recalls.push(hit as f64 / own as f64);
        }
        if own + said > 0 {
            let value = 2.0 * hit as f64 / (own + said) as f64;
            f1.push(value);
            weighted += value * own as f64;
        }
        seen += own;
    }
    if unknown > 0 {
        // All classes that the model does not know are one that it never says.
        recalls.push(0.0);
        f1.push(0.0);
    }
    let known: Vec<(usize, usize)> = truth.iter().enumerate().filter_map(|(row, t)| Some((row, (*t)?))).collect();
    let loss = known.iter().map(|(row, t)| -probabilities[*row][*t].clamp(1e-15, 1.0).ln()).sum::<f64>();
    let mut figures = Figures::from([
        ("accuracy".into(), right as f64 / rows as f64),
        ("balanced_accuracy".into(), mean(&recalls)),
        ("f1_macro".into(), mean(&f1)),
        ("f1_weighted".into(), weighted / (seen + unknown).max(1) as f64),
        ("rows".into(), rows as f64),
    ]);
    if !known.is_empty() {
        figures.insert("log_loss".into(), loss / known.len() as f64);
        let sure: Vec<(f64, bool)> =
            known.iter().map(|(row, t)| (probabilities[*row][guess[*row]], guess[*row] == *t)).collect();
        figures.insert("ece".into(), calibration_error(&sure));
    }
    let of = |class: usize| -> Option<f64> {
        let scores: Vec<(f64, bool)> = known.iter().map(|(row, t)| (probabilities[*row][class], *t == class)).collect();
        auroc(&scores)
    };
    let areas: Vec<f64> = if count == 2 { of(1).into_iter().collect() } else { (0..count).filter_map(of).collect() };
    if !areas.is_empty() {
        figures.insert("auroc".into(), mean(&areas));
    }
    Ok(figures)
}

/// Of probabilities of labels that may hold together, `rows × labels`, and which hold: exact match, macro and micro F1 at one half, Hamming
/// loss, mean AUROC, log-loss.
pub fn labels(probabilities: &[Vec<f64>], truth: &[Vec<bool>]) -> Result<Figures> {
    let rows = probabilities.len();
    if rows == 0 || rows != truth.len() {
        return Err(Error::Config(format!(
            "figures of labels: found {rows} predictions and {} rows of labels",
            truth.len()
        )));
    }
    let count = probabilities[0].len();
    let (mut f1, mut areas, mut total) = (Vec::new(), Vec::new(), [0usize; 3]);
    let (mut loss, mut wrong) = (0.0, 0usize);
    for label in 0..count {
        let pairs: Vec<(f64, bool)> = probabilities.iter().zip(truth).map(|(p, t)| (p[label], t[label])).collect();
        let hit = pairs.iter().filter(|(p, t)| *p >= 0.5 && *t).count();
        let said = pairs.iter().filter(|(p, _)| *p >= 0.5).count();
        let own = pairs.iter().filter(|(_, t)| *t).count();
        f1.push(if own + said > 0 { 2.0 * hit as f64 / (own + said) as f64 } else { 0.0 });
        total = [total[0] + hit, total[1] + said, total[2] + own];
        areas.extend(auroc(&pairs));
        wrong += pairs.iter().filter(|(p, t)| (*p >= 0.5) != *t).count();
        loss -= pairs.iter().map(|(p, t)| if *t { *p } else { 1.0 - p }.clamp(1e-15, 1.0).ln()).sum::<f64>();
    }
    let exact = probabilities.iter().zip(truth).filter(|(p, t)| p.iter().zip(t.iter()).all(|(p, t)| (*p >= 0.5) == *t));
    let cells = (rows * count).max(1) as f64;
    let mut figures = Figures::from([
        ("accuracy".into(), exact.count() as f64 / rows as f64),
        ("f1_macro".into(), mean(&f1)),
        ("f1_micro".into(), 2.0 * total[0] as f64 / (total[1] + total[2]).max(1) as f64),
        ("hamming_loss".into(), wrong as f64 / cells),
        ("log_loss".into(), loss / cells),
        ("rows".into(), rows as f64),
    ]);
    if !areas.is_empty() {
        figures.insert("auroc".into(), mean(&areas));
    }
    Ok(figures)
}

/// Of predicted numbers: mean absolute and root mean squared error, R², Pearson's and Spearman's correlation.
pub fn numbers(predicted: &[f64], truth: &[f64]) -> Result<Figures> {
    let rows = predicted.len();
    if rows == 0 || rows != truth.len() {
        return Err(Error::Config(format!("figures of numbers: found {rows} predictions and {} labels", truth.len())));
    }
    let off = || predicted.iter().zip(truth).map(|(p, t)| p - t);
    let squares = off().map(|o| o * o).sum::<f64>();
    let level = mean(truth);
    let spread = truth.iter().map(|t| (t - level).powi(2)).sum::<f64>();
    let mut figures = Figures::from([
        ("mae".into(), off().map(f64::abs).sum::<f64>() / rows as f64),
        ("rmse".into(), (squares / rows as f64).sqrt()),
        ("rows".into(), rows as f64),
    ]);
    if spread > 0.0 {
        figures.insert("r2".into(), 1.0 - squares / spread);
        figures.extend(correlation(predicted, truth).map(|c| ("pearson".into(), c)));
        figures.extend(correlation(&ranks(predicted), &ranks(truth)).map(|c| ("spearman".into(), c)));
    }
    Ok(figures)
}

/// Of sentiment scores in [−3, 3] as CMU-MOSI's papers give them: Acc-2 and F1 with zero left out and with zero counted as positive,
/// Acc-5 and Acc-7 of rounded scores, MAE, correlation.
pub fn sentiment(predicted: &[f64], truth: &[f64]) -> Result<Figures> {
    let mut figures = numbers(predicted, truth)?;
    let share = |hits: &[bool]| hits.iter().filter(|h| **h).count() as f64 / hits.len().max(1) as f64;
    let two = |pairs: Vec<(bool, bool)>| -> Option<(f64, f64)> {
        if pairs.is_empty() {
            return None;
        }
        let right: Vec<bool> = pairs.iter().map(|(p, t)| p == t).collect();
        let f1 = |side: bool| {
            let own = pairs.iter().filter(|(_, t)| *t == side).count();
            let said = pairs.iter().filter(|(p, _)| *p == side).count();
            let hit = pairs.iter().filter(|(p, t)| *p == side && *t == side).count();
            own as f64 * if own + said > 0 { 2.0 * hit as f64 / (own + said) as f64 } else { 0.0 }
        };
        Some((share(&right), (f1(true) + f1(false)) / pairs.len() as f64))
    };
    let both = || predicted.iter().zip(truth);
    if let Some((accuracy, f1)) = two(both().filter(|(_, t)| **t != 0.0).map(|(p, t)| (*p > 0.0, *t > 0.0)).collect()) {
        figures.extend([("acc2_nonzero".into(), accuracy), ("f1_nonzero".into(), f1)]);
    }
    if let Some((accuracy, f1)) = two(both().map(|(p, t)| (*p >= 0.0, *t >= 0.0)).collect()) {
        figures.extend([("acc2".into(), accuracy), ("f1".into(), f1)]);
    }
    for most in [2.0, 3.0] {
        let step = |v: f64| v.clamp(-most, most).round_ties_even();
        let hits: Vec<bool> = both().map(|(p, t)| step(*p) == step(*t)).collect();
        figures.insert(format!("acc{}", 2.0 * most + 1.0), share(&hits));
    }
    Ok(figures)
}

/// Place of the largest.
pub fn best(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (place, v)| if *v > values[best] { place } else { best })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Area under the curve of (score, whether it holds); none when only one kind is there. Ties count half.
pub fn auroc(pairs: &[(f64, bool)]) -> Option<f64> {
    let scores: Vec<f64> = pairs.iter().map(|p| p.0).collect();
    let ranks = ranks(&scores);
    let positive = pairs.iter().filter(|p| p.1).count() as f64;
    let negative = pairs.len() as f64 - positive;
    if positive == 0.0 || negative == 0.0 {
        return None;
    }
    let sum: f64 = ranks.iter().zip(pairs).filter(|(_, p)| p.1).map(|(r, _)| r).sum();
    Some((sum - positive * (positive + 1.0) / 2.0) / (positive * negative))
}

fn calibration_error(pairs: &[(f64, bool)]) -> f64 {
    const BINS: usize = 15;
    let mut bins = [(0.0, 0.0, 0usize); BINS];
    for (sure, right) in pairs {
        let bin = &mut bins[((sure * BINS as f64).ceil() as usize).clamp(1, BINS) - 1];
        *bin = (bin.0 + sure, bin.1 + f64::from(u8::from(*right)), bin.2 + 1);
    }
    bins.iter().map(|(sure, right, _)| (sure - right).abs()).sum::<f64>() / pairs.len().max(1) as f64
}

/// Ranks from one, ties sharing their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut out = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let mut end = start + 1;
        while end < order.len() && values[order[end]] == values[order[start]] {
            end += 1;
        }
        for place in &order[start..end] {
            out[*place] = (start + 1 + end) as f64 / 2.0;
        }
        start = end;
    }
    out
}

fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let (ma, mb) = (mean(a), mean(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - ma) * (y - mb);
        aa += (x - ma).powi(2);
        bb += (y - mb).powi(2);
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_scikit_learn() {
        let near = |figures: &Figures, name: &str, wanted: f64| {
            assert!((figures[name] - wanted).abs() < 1e-9, "{name}: {} {wanted}", figures[name]);
        };
        // sklearn.metrics on y = [0,1,2,1,0], p as below.
        let p = vec![
            vec![0.7, 0.2, 0.1],
            vec![0.1, 0.6, 0.3],
            vec![0.2, 0.5, 0.3],
            vec![0.1, 0.8, 0.1],
            vec![0.4, 0.5, 0.1],
        ];
        let found = classes(&p, &[Some(0), Some(1), Some(2), Some(1), Some(0)]).unwrap();
        near(&found, "accuracy", 0.6);
        near(&found, "balanced_accuracy", (0.5 + 1.0 + 0.0) / 3.0);
        near(&found, "f1_macro", (2.0 / 3.0 + 2.0 / 3.0 + 0.0) / 3.0);
        near(&found, "f1_weighted", (2.0 * 2.0 / 3.0 + 2.0 * 2.0 / 3.0) / 5.0);
        let loss = -(0.7f64.ln() + 0.6f64.ln() + 0.3f64.ln() + 0.8f64.ln() + 0.4f64.ln()) / 5.0;
        near(&found, "log_loss", loss);
        near(&found, "auroc", (1.0 + 1.0 + 0.875) / 3.0);
        let unknown = classes(&p, &[Some(0), Some(1), None, Some(1), Some(0)]).unwrap();
        near(&unknown, "accuracy", 0.6);
        let two = labels(&[vec![0.9, 0.2], vec![0.4, 0.6]], &[vec![true, false], vec![true, true]]).unwrap();
        near(&two, "accuracy", 0.5);
        near(&two, "f1_micro", 0.8);
        near(&two, "hamming_loss", 0.25);
        let numbers = numbers(&[1.0, 2.0, 3.5, 3.0], &[1.0, 3.0, 3.0, 4.0]).unwrap();
        near(&numbers, "mae", 0.625);
        near(&numbers, "r2", 1.0 - 2.25 / 4.75);
        // scipy.stats.spearmanr([1,2,3.5,3],[1,3,3,4]) = 0.6324555320336759
        near(&numbers, "spearman", 0.632_455_532_033_675_9);
        let scores = sentiment(&[0.4, -1.2, 2.6, 0.1], &[0.0, -1.0, 3.0, -0.2]).unwrap();
        near(&scores, "acc2_nonzero", 2.0 / 3.0);
        near(&scores, "acc2", 0.75);
        near(&scores, "acc7", 1.0);
        assert!(auroc(&[(0.3, true)]).is_none());
    }
}
