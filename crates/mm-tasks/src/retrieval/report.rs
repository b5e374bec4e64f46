//! The HTML report of retrieval runs.

mod gallery;
mod queries;
mod tables;

use super::{EmbeddedSplit, Retrieval};
use crate::{
    Error, Result,
    report::{
        Report,
        chart::{Line, lines, scatter},
        curves::{Chart, curves},
        page::render,
        tsne::tsne,
    },
    task::{ProgressFn, TaskContext},
};
use mm_core::{Modality, Tensor};
use mm_data::{Manifest, Split};
use mm_train::Run;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

/// Reports runs that differ only in their seed: metrics with mean and standard deviation, examples of the first run.
pub(super) fn build(
    runs: &[PathBuf],
    split: Split,
    context: &TaskContext<'_>,
    on_progress: ProgressFn<'_>,
) -> Result<Report> {
    let mut evaluations = Vec::new();
    let mut first = None;
    for run in runs {
        on_progress(&format!("evaluating {}", run.display()), evaluations.len(), runs.len());
        let model = Retrieval::load(run, context)?;
        let manifest = model.dataset()?;
        let (embedded, evaluation) = model.evaluate_split(&manifest, split, &mut |_, _, _| {})?;
        evaluations.push(evaluation);
        first.get_or_insert((model, manifest, embedded));
    }
    let Some((model, manifest, embedded)) = first else {
        return Err(Error::invalid("runs", "none", "at least one run folder"));
    };
    on_progress("rendering the report", 0, 1);
    let modalities = embedded.keys().map(Modality::name).collect::<Vec<_>>().join(", ");
    let html = render(
        "retrieval.html",
        json!({
            "title": format!("Retrieval: {modalities}"),
            "cards": tables::cards(runs, &evaluations, split, manifest.rows.len(), &embedded),
            "sections": tables::sections(&evaluations, split),
            "curves": training_curves(runs)?,
            "maps": maps(&model, context, &manifest, &embedded, split)?,
            "examples": queries::examples(&embedded)?,
            "attention": gallery::attention(&model, &embedded)?,
            "confusions": gallery::confusions(&embedded)?,
        }),
    )?;
    Ok(Report { html, evaluations: evaluations.iter().map(|e| json!({"metrics": e.metrics()})).collect() })
}

/// The loss of every run, then every value that the first run logged.
fn training_curves(runs: &[PathBuf]) -> Result<Vec<Chart>> {
    let mut losses = Vec::new();
    for run in runs {
        let records = Run::read_metrics(run)?;
        let points = records.iter().filter(|r| r.split == "train");
        let points = points.filter_map(|r| Some((r.epoch, *r.values.get("loss")?))).collect();
        let name = run.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        losses.push(Line { name, points });
    }
    let mut charts = vec![Chart { svg: lines(&losses, "epoch", "loss")?, caption: "training loss of each run".into() }];
    charts.extend(curves(&runs[0])?);
    Ok(charts)
}

/// One entry for each item, so that items with many recordings do not dominate the map.
fn one_per_item(embedded: &EmbeddedSplit, limit: usize) -> Result<(Tensor, Vec<String>)> {
    let mut first = BTreeMap::new();
    for (index, entry) in embedded.entries.iter().enumerate() {
        first.entry(entry.item.clone()).or_insert(index as i64);
    }
    let (items, indices): (Vec<String>, Vec<i64>) = first.into_iter().take(limit).unzip();
    Ok((embedded.vectors.index_select(0, &Tensor::from_slice(&indices)?)?, items))
}

/// The shared space before and after training.
fn maps(
    model: &Retrieval,
    context: &TaskContext<'_>,
    manifest: &Manifest,
    after: &BTreeMap<Modality, EmbeddedSplit>,
    split: Split,
) -> Result<Vec<Chart>> {
    let before = model.untrained(context)?.embed_split(manifest, split, &mut |_, _, _| {})?;
    let mut charts = Vec::new();
    for (caption, embedded) in [("before training", &before), ("after training", after)] {
        let (mut vectors, mut items) = (Vec::new(), Vec::new());
        for (modality, split) in embedded {
            let (own, own_items) = one_per_item(split, 300)?;
            vectors.push(own);
            items.push((modality.to_string(), own_items));
        }
        let points = tsne(&Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?, 20.0, 500)?;
        let (mut groups, mut start) = (Vec::new(), 0);
        let mut by_item: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
        for (modality, items) in &items {
            let own = points[start..start + items.len()].to_vec();
            for (item, point) in items.iter().zip(&own) {
                by_item.entry(item).or_default().push(*point);
            }
            start += items.len();
            groups.push((modality.clone(), own));
        }
        let links: Vec<_> = by_item.values().flat_map(|p| p.windows(2).map(|w| (w[0], w[1]))).collect();
        charts.push(Chart { svg: scatter(&groups, &links)?, caption: caption.into() });
    }
    Ok(charts)
}
