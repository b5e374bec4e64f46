//! The page of a captioning: figures beside the nearest picture's caption, and pictures with what was said of them.

use super::{Report, html_escape, html_page, html_table, html_thumbnail, mean_with_spread};
use crate::{Error, Result, Told, captioning::Captioning, metrics::Judges};
use mm_core::{Device, Modality, Registry, Source};
use mm_data::Split;
use std::{fmt::Write, path::PathBuf};

/// A report of runs that differ in their seed alone.
pub fn build_captioning(
    runs: &[PathBuf],
    split: Split,
    registry: &Registry,
    device: Device,
    told: Told<'_>,
) -> Result<Report> {
    let mut all = Vec::new();
    let mut shown = None;
    for run in runs {
        told(&format!("evaluating {}", run.display()), all.len(), runs.len());
        let model = Captioning::load(run, registry, device)?;
        all.push(model.evaluated(split, Judges::default(), &mut |_, _, _| {})?);
        shown.get_or_insert(model);
    }
    let (Some(first), Some(model)) = (all.first(), shown) else {
        return Err(Error::Config("a report needs at least one run".into()));
    };
    let head = ["figure", "model", "nearest picture's caption"].map(ToOwned::to_owned).to_vec();
    let mut rows = vec![head];
    for name in first.model.keys() {
        let of = |pick: &dyn Fn(&crate::captioning::CaptionFigures) -> Option<f64>| {
            mean_with_spread(&all.iter().filter_map(pick).collect::<Vec<_>>())
        };
        let (mine, other) = (of(&|f| f.model.get(name).copied()), of(&|f| f.nearest.get(name).copied()));
        rows.push(vec![name.clone(), mine, other]);
    }
    let mut body = format!("<p>{} run(s), the {split} side.</p>", runs.len());
    body.push_str(&html_table(&rows));
    body.push_str("<h2>What was said</h2>");
    let manifest = model.manifest()?;
    let of = Modality::from(model.config.of.as_str());
    for (id, said, nearest, references) in &first.examples {
        let picture = manifest.rows.iter().find(|r| r.id == *id).and_then(|r| r.values.get(&of)?.first());
        let picture = match picture {
            Some(Source::File(path)) => html_thumbnail(path, said),
            _ => String::new(),
        };
        let _ = write!(
            body,
            "<p>{picture} <b>{}</b><br><span class=\"soft\">nearest picture: {}<br>people: {}</span></p>",
            html_escape(said),
            html_escape(nearest),
            html_escape(&references.join(" / "))
        );
    }
    let values = all.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    let evaluations = values.map_err(|e| Error::Config(e.to_string()))?;
    Ok(Report { html: html_page("Captions", &body), evaluations })
}
