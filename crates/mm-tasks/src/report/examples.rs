//! The report page of generated text: metrics and examples.

use super::{
    curves::curves,
    html::thumbnail,
    page::{Report, render},
};
use crate::{
    Error, Result,
    metrics::{Metrics, metrics_table},
};
use mm_core::{Modality, Source};
use mm_data::{Manifest, Split};
use serde::Serialize;
use serde_json::json;
use std::path::PathBuf;

/// A row with its generated text.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Example {
    /// The id of the row.
    pub(crate) id: String,
    /// The question; empty where there is none.
    pub(crate) question: String,
    /// The generated text.
    pub(crate) output: String,
    /// Lines below it.
    pub(crate) details: Vec<String>,
}

#[derive(Serialize)]
struct Shown {
    /// The input as an `<img>` element.
    image: String,
    #[serde(flatten)]
    example: Example,
}

/// The report of runs that differ only in their seed, for tasks without examples of their own: their metrics, and the
/// training curves of the first.
///
/// # Errors
/// When there is no run, or its log cannot be read.
pub fn metrics_report(title: &str, runs: &[PathBuf], split: Split, metrics: &[Metrics]) -> Result<Report> {
    report_page(title, runs, split, metrics, &[])
}

/// The page of runs that differ only in their seed: their metrics, and examples of the first.
pub(crate) fn examples_page(
    title: &str,
    runs: &[PathBuf],
    split: Split,
    metrics: &[Metrics],
    manifest: &Manifest,
    modality: &Modality,
    examples: &[Example],
) -> Result<Report> {
    let show = |example: &Example| -> Shown {
        let Example { id, output, .. } = example;
        let value = manifest.rows.iter().find(|r| r.id == *id).and_then(|r| r.values.get(modality)?.first());
        let image = match value {
            Some(image @ (Source::Path(_) | Source::Bytes(_))) => thumbnail(image, output),
            _ => String::new(),
        };
        Shown { image, example: example.clone() }
    };
    report_page(title, runs, split, metrics, &examples.iter().map(show).collect::<Vec<_>>())
}

fn report_page(title: &str, runs: &[PathBuf], split: Split, metrics: &[Metrics], examples: &[Shown]) -> Result<Report> {
    let first = runs.first().ok_or_else(|| Error::invalid("runs", "none", "at least one run folder"))?;
    let html = render(
        "examples.html",
        json!({
            "title": title, "runs": metrics.len(), "split": split, "metrics": metrics_table(metrics),
            "examples": examples, "curves": curves(first)?,
        }),
    )?;
    Ok(Report { html, evaluations: metrics.iter().map(|metrics| json!({"metrics": metrics})).collect() })
}
