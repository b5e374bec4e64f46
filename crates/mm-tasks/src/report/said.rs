//! The page of what a model said of held-out rows: its figures beside others, and pictures with what was said of them.

use super::{Report, html_escape, html_page, html_table, html_thumbnail};
use crate::{
    Error, Result,
    metrics::{Metrics, metrics_table},
};
use mm_core::{Modality, Source};
use mm_data::{Manifest, Split};
use std::fmt::Write;

/// What is shown of one row.
pub(super) struct Shown<'a> {
    /// The row's id.
    pub(super) id: &'a str,
    /// What was asked; nothing where pictures are described.
    pub(super) asked: &'a str,
    /// What was said.
    pub(super) said: &'a str,
    /// What stands below it, line by line.
    pub(super) below: Vec<String>,
}

/// What the page is about.
pub(super) struct About<'a> {
    pub(super) title: &'a str,
    pub(super) split: Split,
    /// What is looked at.
    pub(super) of: Modality,
}

/// The page of runs that differ in their seed alone: of each its figures, those beside them, and its evaluation.
pub(super) fn page(
    about: &About<'_>,
    runs: &[Metrics],
    evaluations: &[impl serde::Serialize],
    manifest: &Manifest,
    shown: &[Shown<'_>],
) -> Result<Report> {
    let mut body = format!("<p>{} run(s), the {} side.</p>", runs.len(), about.split);
    body.push_str(&html_table(&metrics_table(runs)));
    body.push_str("<h2>What was said</h2>");
    for Shown { id, asked, said, below } in shown {
        let picture = manifest.rows.iter().find(|r| r.id == *id).and_then(|r| r.values.get(&about.of)?.first());
        let picture = match picture {
            Some(Source::Path(path)) => html_thumbnail(path, said),
            _ => String::new(),
        };
        let below: Vec<String> = below.iter().map(|line| html_escape(line)).collect();
        let _ = write!(
            body,
            "<p>{picture} {} <b>{}</b><br><span class=\"soft\">{}</span></p>",
            html_escape(asked),
            html_escape(said),
            below.join("<br>")
        );
    }
    let values = evaluations.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    let evaluations = values.map_err(|e| Error::Config(e.to_string()))?;
    Ok(Report { html: html_page(about.title, &body), evaluations })
}
