//! The page of a search.

use super::Trial;
use crate::{
    Result,
    report::{
        Report,
        chart::{Line, lines},
        curves::Chart,
        page::render,
    },
};
use serde::Serialize;
use serde_json::json;

/// Trials whose scores are drawn.
const MAX_LINES: usize = 6;

/// A row of the table.
#[derive(Serialize)]
struct TrialRow<'a> {
    name: String,
    error: Option<&'a String>,
    epochs: String,
    score: String,
}

impl<'a> TrialRow<'a> {
    fn new(trial: &'a Trial) -> Self {
        let last = trial.scores.last();
        let (epochs, score) =
            last.map(|(epochs, score)| (epochs.to_string(), format!("{score:.4}"))).unwrap_or_default();
        Self { name: trial.name(), error: trial.error.as_ref(), epochs, score }
    }
}

pub(super) fn search_report(trials: &[Trial]) -> Result<Report> {
    let rows: Vec<TrialRow<'_>> = trials.iter().map(TrialRow::new).collect();
    let series: Vec<Line> = trials
        .iter()
        .filter(|t| t.scores.len() > 1)
        .take(MAX_LINES)
        .map(|t| Line { name: t.name(), points: t.scores.iter().map(|(e, s)| (*e as f64, *s)).collect() })
        .collect();
    let mut charts = Vec::new();
    if !series.is_empty() {
        let caption = "score by epochs trained, of the six best trials".to_owned();
        charts.push(Chart { svg: lines(&series, "epochs", "score")?, caption });
    }
    let html = render("fusion_search.html", json!({"title": "Fusion search", "charts": charts, "trials": rows}))?;
    Ok(Report { html, evaluations: trials.iter().map(|t| json!(t)).collect() })
}
