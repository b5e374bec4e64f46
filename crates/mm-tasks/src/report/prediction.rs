//! The report of a prediction: its figures, what each modality is worth, where it errs, whether its probabilities can be trusted.

use super::{
    chart::{Line, lines},
    curves::curves,
    html::{charts, escape, page, table, thumbnail},
    page::Report,
};
use crate::{
    Error, Result,
    metrics::{self, Metrics, metrics_table},
    prediction::{Predicted, Predictor, Problem},
};
use mm_core::{Device, Modality, Registry, Source};
use mm_data::{Manifest, Split};
use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

/// Most modalities for which every subset is asked.
const MOST: usize = 6;
/// Rows that each subset is asked about.
const ASKED: usize = 300;

/// Reports runs that differ in their seed alone: figures with mean and spread, the rest of the first. A run without rows on the side asked for
/// is measured on what was held out to choose by.
pub fn build_prediction(runs: &[PathBuf], split: Split, registry: &Registry, device: Device) -> Result<Report> {
    let mut all: Vec<Metrics> = Vec::new();
    let mut shown = None;
    for run in runs {
        let open = |side: Split| -> Result<Option<_>> {
            let predictor = Predictor::open_for(run, side, registry, device)?;
            let manifest = predictor.manifest()?;
            Ok((!manifest.rows_in_split(side).is_empty()).then_some((predictor, manifest, side)))
        };
        let found = open(split)?.map_or_else(|| open(Split::Valid), |found| Ok(Some(found)))?;
        let none = || Error::Config(format!("{}: no rows were held out of training", run.display()));
        let (predictor, manifest, side) = found.ok_or_else(none)?;
        let rows: Vec<usize> = manifest
            .rows_in_split(side)
            .into_iter()
            .filter(|r| manifest.rows[*r].cells.contains_key(predictor.label()))
            .collect();
        let mut metrics = predictor.evaluate(&manifest, &rows, &[])?.metrics;
        predictor.add_baselines(&mut metrics, &manifest, &rows)?;
        all.push(metrics);
        if shown.is_none() {
            shown = Some((predictor, manifest, rows, side));
        }
    }
    let Some((predictor, manifest, rows, side)) = shown else {
        return Err(Error::Config("a report needs at least one run".into()));
    };
    let names = predictor.modalities().iter().map(|m| m.name().to_owned()).collect::<Vec<_>>().join(", ");
    let mut body = String::new();
    let _ = write!(
        body,
        "<p class=\"soft\"><b>{}</b> ({:?}) from {names}; {} {side} rows{}.</p><h2>Metrics</h2>",
        escape(predictor.label()),
        predictor.target().problem,
        rows.len(),
        if runs.len() > 1 {
            format!(", {} runs, mean ± sample standard deviation", runs.len())
        } else {
            String::new()
        }
    );
    body.push_str(&table(&metrics_table(&all)));
    let (answers, broken) = predictor.predict(&manifest, &rows, &[])?;
    worth(&mut body, &predictor, &manifest, &rows)?;
    if predictor.target().is_classes() {
        confusion(&mut body, &predictor, &manifest, &answers);
        reliability(&mut body, &predictor, &manifest, &answers)?;
    }
    super::attribution::section(&mut body, &predictor, &manifest, &answers, &truth(&predictor, &manifest, &answers))?;
    mistakes(&mut body, &predictor, &manifest, &answers);
    if !broken.is_empty() {
        let _ = write!(
            body,
            "<h2>Broken</h2><p>{} values could not be read; their rows went without them.</p>",
            broken.len()
        );
        let mut list = vec![vec!["row".to_owned(), "modality".into(), "reason".into()]];
        list.extend(broken.iter().take(20).map(|b| vec![b.row.to_string(), escape(&b.modality), escape(&b.reason)]));
        body.push_str(&table(&list));
    }
    let first = if runs[0].join("ensemble.json").exists() { runs[0].join("member-0") } else { runs[0].clone() };
    body.push_str("<h2>Training curves</h2>");
    body.push_str(&charts(&curves(&first)?));
    let json =
        all.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(|e| Error::Config(e.to_string()))?;
    Ok(Report { html: page(&format!("Prediction of {}", predictor.label()), &body)?, evaluations: json })
}

/// The one figure by which subsets of modalities are compared.
fn value(metrics: &Metrics) -> f64 {
    metrics.get("accuracy").or(metrics.get("r2")).unwrap_or(0.0)
}

/// Each subset of the modalities, and of those each modality's Shapley value: its share of what all together gain over none.
fn worth(body: &mut String, predictor: &Predictor, manifest: &Manifest, rows: &[usize]) -> Result<()> {
    let all = predictor.modalities();
    if all.len() < 2 || all.len() > MOST {
        return Ok(());
    }
    let step = rows.len().div_ceil(ASKED).max(1);
    let some: Vec<usize> = rows.iter().copied().step_by(step).collect();
    let mut values = vec![0.0; 1 << all.len()];
    for (subset, found) in values.iter_mut().enumerate() {
        let drop: Vec<Modality> =
            all.iter().enumerate().filter(|(n, _)| subset & (1 << n) == 0).map(|(_, m)| m.clone()).collect();
        *found = value(&predictor.evaluate(manifest, &some, &drop)?.metrics);
    }
    let full = values.len() - 1;
    let mut list = vec![vec!["modality".to_owned(), "alone".into(), "without it".into(), "Shapley value".into()]];
    for (n, modality) in all.iter().enumerate() {
        let mut share = 0.0;
        for subset in (0..=full).filter(|s| s & (1 << n) == 0) {
            let size = subset.count_ones() as usize;
            let weight = factorial(size) * factorial(all.len() - size - 1) / factorial(all.len());
            share += weight * (values[subset | (1 << n)] - values[subset]);
        }
        list.push(vec![
            escape(modality.name()),
            format!("{:.4}", values[1 << n]),
            format!("{:.4}", values[full ^ (1 << n)]),
            format!("{share:+.4}"),
        ]);
    }
    list.push(vec![
        "all".into(),
        format!("{:.4}", values[full]),
        format!("{:.4}", values[0]),
        format!("{:+.4}", values[full] - values[0]),
    ]);
    let what = if predictor.target().problem == Problem::Regression { "R²" } else { "accuracy" };
    let _ = write!(
        body,
        "<h2>What each modality is worth</h2><p class=\"soft\">{what} on {} rows, the rest being withheld from the same model. The Shapley value is \
         exact: the mean gain over every order in which modalities could be added; the values sum to the last line.</p>",
        some.len()
    );
    body.push_str(&table(&list));
    let weights = predictor.weights(manifest, &some)?;
    if !weights.is_empty() {
        let parts: Vec<String> = weights.iter().map(|(m, w)| format!("{} {w:.3}", escape(m.name()))).collect();
        let _ =
            write!(body, "<p class=\"soft\">How far the operator lets each in, on average: {}.</p>", parts.join(", "));
    }
    Ok(())
}

fn factorial(n: usize) -> f64 {
    (1..=n).map(|i| i as f64).product()
}

fn truth<'a>(predictor: &Predictor, manifest: &'a Manifest, answers: &[Predicted]) -> Vec<Option<&'a str>> {
    let by_number: BTreeMap<&str, &mm_data::Row> = manifest.rows.iter().map(|r| (r.id.as_str(), r)).collect();
    answers
        .iter()
        .map(|a| by_number.get(a.id.as_str()).and_then(|r| r.cells.get(predictor.label())).map(String::as_str))
        .collect()
}

fn said(answer: &Predicted) -> &str {
    answer.prediction.as_str().unwrap_or_default()
}

fn confusion(body: &mut String, predictor: &Predictor, manifest: &Manifest, answers: &[Predicted]) {
    let classes = &predictor.target().classes;
    let truth = truth(predictor, manifest, answers);
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (answer, truth) in answers.iter().zip(&truth) {
        if let Some(truth) = truth {
            *counts.entry((truth, said(answer))).or_default() += 1;
        }
    }
    body.push_str("<h2>Confusions</h2>");
    if classes.len() <= 12 {
        let mut list = vec![
            std::iter::once("is ↓ said →".to_owned()).chain(classes.iter().map(|c| escape(c))).collect::<Vec<_>>(),
        ];
        for class in classes {
            let own = |said: &String| counts.get(&(class.as_str(), said.as_str())).copied().unwrap_or(0);
            let cells =
                classes.iter().map(|c| if c == class { format!("<b>{}</b>", own(c)) } else { own(c).to_string() });
            list.push(std::iter::once(escape(class)).chain(cells).collect());
        }
        body.push_str(&table(&list));
        return;
    }
    let mut wrong: Vec<((&str, &str), usize)> = counts.into_iter().filter(|((t, s), _)| t != s).collect();
    wrong.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut list = vec![vec!["is".to_owned(), "said".into(), "rows".into()]];
    list.extend(wrong.into_iter().take(15).map(|((t, s), n)| vec![escape(t), escape(s), n.to_string()]));
    body.push_str(&table(&list));
}

/// How often answers of a certain sureness are right.
fn reliability(body: &mut String, predictor: &Predictor, manifest: &Manifest, answers: &[Predicted]) -> Result<()> {
    const BINS: usize = 10;
    let mut bins = [(0.0, 0.0, 0usize); BINS];
    for (answer, truth) in answers.iter().zip(truth(predictor, manifest, answers)) {
        let Some(truth) = truth else { continue };
        let p: Vec<f64> = answer.probabilities.iter().map(|p| p.1).collect();
        let sure = p[metrics::argmax(&p)];
        let bin = &mut bins[((sure * BINS as f64) as usize).min(BINS - 1)];
        *bin = (bin.0 + sure, bin.1 + f64::from(u8::from(said(answer) == truth)), bin.2 + 1);
    }
    let points = bins.iter().filter(|b| b.2 > 0).map(|(s, r, n)| (s / *n as f64, r / *n as f64)).collect();
    let both = [
        Line { name: "this model".into(), points },
        Line { name: "if it were as right as it is sure".into(), points: vec![(0.0, 0.0), (1.0, 1.0)] },
    ];
    let _ = write!(
        body,
        "<h2>Can its probabilities be trusted?</h2><div class=\"charts\"><figure>{}<figcaption>share of right answers against their probability</figcaption></figure></div>",
        lines(&both, "probability of its answer", "share that is right")?
    );
    Ok(())
}

fn mistakes(body: &mut String, predictor: &Predictor, manifest: &Manifest, answers: &[Predicted]) {
    let truth = truth(predictor, manifest, answers);
    let by_id: BTreeMap<&str, &mm_data::Row> = manifest.rows.iter().map(|r| (r.id.as_str(), r)).collect();
    // The surest of the wrong ones, or the numbers that are furthest off.
    let mut wrong: Vec<(f64, &Predicted, &str)> = answers
        .iter()
        .zip(&truth)
        .filter_map(|(answer, truth)| {
            let truth = (*truth)?;
            let how = match predictor.target().problem {
                Problem::Regression => (answer.prediction.as_f64()? - truth.parse::<f64>().ok()?).abs(),
                Problem::Multilabel => return None,
                _ if said(answer) == truth => return None,
                _ => answer.probabilities.iter().map(|p| p.1).fold(0.0, f64::max),
            };
            Some((how, answer, truth))
        })
        .collect();
    if wrong.is_empty() {
        return;
    }
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    body.push_str("<h2>Furthest off</h2>");
    let mut list =
        vec![vec!["row".to_owned(), "what".into(), "is".into(), "said".into(), "how sure, or how far".into()]];
    for (how, answer, truth) in wrong.into_iter().take(12) {
        let Some(row) = by_id.get(answer.id.as_str()) else { continue };
        let mut what = String::new();
        for values in row.values.values() {
            match values.first() {
                Some(Source::Text(text)) => {
                    let short: String = text.chars().take(80).collect();
                    let _ = write!(what, "<span class=\"text\">{}</span> ", escape(&short));
                }
                Some(Source::Path(path))
                    if row.values.get(&Modality::IMAGE).is_some_and(|v| v.first() == values.first()) =>
                {
                    what.push_str(&thumbnail(path, &row.id));
                }
                _ => {}
            }
        }
        let guess = answer.prediction.as_f64().map_or_else(|| escape(said(answer)), |v| format!("{v:.3}"));
        list.push(vec![escape(&answer.id), what, escape(truth), guess, format!("{how:.3}")]);
    }
    body.push_str(&table(&list));
}
