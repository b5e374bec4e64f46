//! The HTML report of representation runs.

use super::{data::EvalData, model::Representation, subsets::select};
use crate::{
    Error, Result,
    metrics::{Metrics, metrics_table},
    report::{
        Report,
        chart::scatter,
        curves::{Chart, curves},
        image_grid::GridFigure,
        page::render,
        tsne::tsne,
    },
    task::{ProgressFn, TaskContext},
};
use mm_core::{InputSet, Modality, Source, Tensor, no_grad, seed::manual_seed};
use mm_data::Split;
use mm_repr::generative::{InputConfig, ValueType, decode_chars};
use serde::Serialize;
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf};

/// Width of a grid of samples in pixels.
const GRID_WIDTH: u32 = 960;
/// Rows that are shown of each modality.
const SHOWN: usize = 12;

#[derive(Serialize)]
struct TextTable {
    title: String,
    rows: Vec<Vec<String>>,
}

/// The model's outputs that the page shows.
#[derive(Default)]
struct Outputs {
    texts: Vec<TextTable>,
    grids: Vec<GridFigure>,
}

/// Reports runs that differ only in their seed: metrics with mean and standard deviation, samples of the first run.
pub(super) fn build(
    runs: &[PathBuf],
    split: Split,
    context: &TaskContext<'_>,
    on_progress: ProgressFn<'_>,
) -> Result<Report> {
    let mut all: Vec<Metrics> = Vec::new();
    let mut first = None;
    for run in runs {
        on_progress(&format!("evaluating {}", run.display()), all.len(), runs.len());
        let model = Representation::load(run, context)?;
        let (metrics, data) = model.evaluate_split(split, context, &mut |_, _, _| {})?;
        all.push(metrics);
        first.get_or_insert((model, data));
    }
    let Some((model, data)) = first else { return Err(Error::invalid("runs", "none", "at least one run folder")) };
    on_progress("rendering the report", 0, 1);
    let kind = model.config().model.get("kind").and_then(toml::Value::as_str).unwrap_or_default();
    let modalities = model.input_modalities().map(Modality::name).collect::<Vec<_>>().join(", ");
    let (outputs, maps) = no_grad(|| Ok::<_, Error>((outputs(&model, &data)?, map(&model, &data)?)))?;
    let html = render(
        "representation.html",
        json!({
            "title": format!("Representation: {kind} of {modalities}"),
            "dim": model.learner().dim(), "split": split, "runs": runs.len(),
            "test_rows": data.test.rows.len(), "train_rows": data.train.rows.len(),
            "metrics": metrics_table(&all), "texts": outputs.texts, "grids": outputs.grids, "maps": maps,
            "curves": curves(&runs[0])?,
        }),
    )?;
    Ok(Report { html, evaluations: all.iter().map(|metrics| json!({"metrics": metrics})).collect() })
}

/// Rows with a modality, spread over the split so that several classes are seen.
fn sample_rows(set: &InputSet, modality: &Modality, count: usize) -> Result<Option<(InputSet, Vec<usize>)>> {
    let Some((_, present)) = set.parts.get(modality) else { return Ok(None) };
    let rows: Vec<usize> = present.to_vec::<bool>()?.iter().enumerate().filter_map(|(n, p)| p.then_some(n)).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let step = (rows.len() / count).max(1);
    let picked: Vec<usize> = rows.into_iter().step_by(step).take(count).collect();
    let indices = Tensor::from_slice(&picked.iter().map(|p| *p as i64).collect::<Vec<_>>())?;
    Ok(Some((select(set, &indices)?, picked)))
}

/// Reconstructions, translations, interpolations and samples.
fn outputs(model: &Representation, data: &EvalData) -> Result<Outputs> {
    let mut out = Outputs::default();
    for to in model.input_modalities() {
        let (Some(value_type), Some((set, rows))) = (model.value_type(to), sample_rows(&data.test.set, to, SHOWN)?)
        else {
            continue;
        };
        match value_type {
            ValueType::Tokens(_) => text_outputs(model, to, &set, &mut out)?,
            ValueType::UnitInterval | ValueType::Real if set.parts[to].0.values.rank() == 4 => {
                image_outputs(model, data, to, &set, rows.len(), &mut out)?;
            }
            _ => {}
        }
    }
    Ok(out)
}

fn text_outputs(model: &Representation, to: &Modality, set: &InputSet, out: &mut Outputs) -> Result<()> {
    let Some(InputConfig::Characters { alphabet, .. }) = model.config().inputs.get(to.name()) else { return Ok(()) };
    let Some(output) = model.reconstruct(&set.only(&[to]), to)? else { return Ok(()) };
    let own = &set.parts[to].0.values;
    let length = own.size(1)? as usize;
    let (inputs, outputs) = (own.to_vec::<i64>()?, output.to_vec::<i64>()?);
    let mut rows = vec![vec!["held-out text".to_owned(), "reconstruction".to_owned()]];
    let pairs = inputs.chunks(length).zip(outputs.chunks(length));
    rows.extend(pairs.map(|(x, y)| vec![decode_chars(x, alphabet), decode_chars(y, alphabet)]));
    out.texts.push(TextTable { title: format!("{to}: reconstructions"), rows });
    if let Some(decoder) = model.learner().decoder() {
        let steps = interpolate(&model.encode(&set.only(&[to]))?, 5)?;
        let decoded = decoder.decode(&steps, to)?.to_vec::<i64>()?;
        let mut rows = vec![vec!["interpolation between two texts".to_owned()]];
        rows.extend(decoded.chunks(length).map(|s| vec![decode_chars(s, alphabet)]));
        out.texts.push(TextTable { title: format!("{to}: interpolations"), rows });
    }
    Ok(())
}

fn image_outputs(
    model: &Representation,
    data: &EvalData,
    to: &Modality,
    set: &InputSet,
    columns: usize,
    out: &mut Outputs,
) -> Result<()> {
    let mut add = |samples: &Tensor, columns: usize, caption: String| -> Result<()> {
        out.grids.push(GridFigure::new(samples, columns, GRID_WIDTH, caption)?);
        Ok(())
    };
    let own = &set.parts[to].0.values;
    if let Some(output) = model.reconstruct(&set.only(&[to]), to)? {
        let both = Tensor::cat(&[own, &output], 0)?;
        add(&both, columns, format!("{to}: held out (above) and reconstructed (below)"))?;
    }
    let others = || model.input_modalities().filter(|m| *m != to);
    for from in others() {
        let Some((set, rows)) = sample_rows(&data.test.set, from, SHOWN)? else { continue };
        let Some(output) = model.reconstruct(&set.only(&[from]), to)? else { continue };
        let caption =
            format!("{to}: held out (above) and generated from {from} (below): {}", descriptions(data, &rows));
        add(&Tensor::cat(&[&set.parts[to].0.values, &output], 0)?, rows.len(), caption)?;
    }
    let Some(decoder) = model.learner().decoder() else { return Ok(()) };
    if model.learner().reconstruct(&set.only(&[to]), to)?.is_some() {
        let steps = interpolate(&model.encode(&set.only(&[to]))?, 8)?;
        add(&decoder.decode(&steps, to)?, 10, format!("{to}: interpolation between held-out values"))?;
    }
    manual_seed(1);
    if let Some(codes) = decoder.sample_prior(48, None)? {
        return add(&decoder.decode(&codes, to)?, 16, format!("{to}: samples from the prior"));
    }
    for from in others() {
        let Some((set, rows)) = sample_rows(&data.test.set, from, SHOWN)? else { continue };
        let mut lines = vec![set.parts[to].0.values.clone()];
        for _ in 0..3 {
            if let Some(codes) = decoder.sample_prior(set.rows, Some(&set.only(&[from])))? {
                lines.push(decoder.decode(&codes, to)?);
            }
        }
        let caption = format!(
            "{to}: held out (above) and three samples conditioned on {from} (below): {}",
            descriptions(data, &rows)
        );
        add(&Tensor::cat(&lines.iter().collect::<Vec<_>>(), 0)?, rows.len(), caption)?;
    }
    Ok(())
}

/// The first text, or the id, of some test rows.
fn descriptions(data: &EvalData, rows: &[usize]) -> String {
    let describe = |row: &usize| {
        let row = &data.manifest.rows[data.test.rows[*row]];
        match row.values.get(&Modality::TEXT).and_then(|v| v.first()) {
            Some(Source::Text(text)) => text.clone(),
            _ => row.id.clone(),
        }
    };
    rows.iter().map(describe).collect::<Vec<_>>().join(" · ")
}

/// Codes on the lines between pairs of rows, ends included: up to four pairs, `steps + 2` codes each.
fn interpolate(codes: &Tensor, steps: i64) -> Result<Tensor> {
    let pairs = (codes.size(0)? / 2).clamp(0, 4);
    let mut out = Vec::new();
    for pair in 0..pairs {
        let (a, b) = (codes.narrow(0, 2 * pair, 1)?, codes.narrow(0, 2 * pair + 1, 1)?);
        for step in 0..steps + 2 {
            let weight = step as f64 / (steps + 1) as f64;
            out.push(a.mul_scalar(1.0 - weight)?.add(&b.mul_scalar(weight)?)?);
        }
    }
    if out.is_empty() {
        return Ok(codes.clone());
    }
    Ok(Tensor::cat(&out.iter().collect::<Vec<_>>(), 0)?)
}

/// t-SNE of the held-out codes, by label.
fn map(model: &Representation, data: &EvalData) -> Result<Vec<Chart>> {
    let count = data.test.rows.len().min(600);
    let Some(modality) = model.encodable().find(|m| data.test.set.parts.contains_key(m)) else {
        return Ok(Vec::new());
    };
    let Some((set, rows)) = sample_rows(&data.test.set, modality, count)? else { return Ok(Vec::new()) };
    if rows.len() < 8 {
        return Ok(Vec::new());
    }
    let points = tsne(&model.encode(&set)?, 30.0, 400)?;
    let mut groups: BTreeMap<String, Vec<[f64; 2]>> = BTreeMap::new();
    for (row, point) in rows.iter().zip(points) {
        let label = data.manifest.rows[data.test.rows[*row]].label.clone().unwrap_or_else(|| "rows".into());
        groups.entry(label).or_default().push(point);
    }
    let mut groups: Vec<(String, Vec<[f64; 2]>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, points)| std::cmp::Reverse(points.len()));
    let rest: Vec<[f64; 2]> = groups.split_off(groups.len().min(5)).into_iter().flat_map(|(_, p)| p).collect();
    if !rest.is_empty() {
        groups.push(("others".into(), rest));
    }
    Ok(vec![Chart { svg: scatter(&groups, &[])?, caption: format!("{modality}, by label") }])
}
