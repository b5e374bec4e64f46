//! The report of a learned representation: its figures beside simpler ones, its curves, and what it makes.

use super::{
    chart::{Line, lines, scatter},
    html::{escape, page, table},
    map::plane,
    picture::figure,
    retrieval::Report,
};
use crate::{
    Error, Result,
    representation::{Figures, Look, Representation, figure_table, select},
    task::{ProgressFn, TaskContext},
};
use mm_core::{InputSet, Modality, Tensor, no_grad, seed::manual_seed};
use mm_data::Split;
use mm_repr::generative::{InputConfig, ValueType, decode_chars};
use mm_train::Run;
use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

/// Reports runs that differ in their seed alone: figures with mean and spread, pictures of the first.
pub fn build_representation(
    runs: &[PathBuf],
    split: Split,
    context: &TaskContext<'_>,
    on_progress: ProgressFn<'_>,
) -> Result<Report> {
    let mut all: Vec<Figures> = Vec::new();
    let mut shown = None;
    for run in runs {
        on_progress(&format!("evaluating {}", run.display()), all.len(), runs.len());
        let model = Representation::load(run, context)?;
        let (figures, look) = model.evaluated(split, context, &mut |_, _, _| {})?;
        all.push(figures);
        if shown.is_none() {
            shown = Some((model, look));
        }
    }
    let Some((model, look)) = shown else { return Err(Error::Config("a report needs at least one run".into())) };
    on_progress("drawing", 0, 1);
    let kind = model.config().model.get("kind").and_then(toml::Value::as_str).unwrap_or("representation").to_owned();
    let names = model.input_modalities().map(Modality::name).collect::<Vec<_>>().join(", ");
    let mut body = String::new();
    let _ = write!(
        body,
        "<p class=\"soft\">Code of width {} on {} {split} rows that training never saw ({} training rows); {} run{}. ↑ more is better, ↓ less is better. \
         PCA is of the code's width, fitted on the same training rows; the unlearned network is this one before training.</p>",
        model.learner().dim(),
        look.test.rows.len(),
        look.train.rows.len(),
        runs.len(),
        if runs.len() > 1 { "s, mean ± sample standard deviation" } else { "" }
    );
    let rows: Vec<Vec<String>> =
        figure_table(&all).into_iter().map(|r| r.iter().map(|c| escape(c)).collect()).collect();
    body.push_str("<h2>Figures</h2>");
    body.push_str(&table(&rows));
    no_grad(|| {
        made(&mut body, &model, &look)?;
        map(&mut body, &model, &look)
    })?;
    curves(&mut body, &runs[0])?;
    let json =
        all.iter().map(serde_json::to_value).collect::<Result<_, _>>().map_err(|e| Error::Config(e.to_string()))?;
    Ok(Report { html: page(&format!("Representation: {kind} of {names}"), &body), evaluations: json })
}

/// Rows with a modality, spread over the side so that not only the first kind is seen.
fn some(set: &InputSet, modality: &Modality, count: usize) -> Result<Option<(InputSet, Vec<usize>)>> {
    let Some((_, present)) = set.parts.get(modality) else { return Ok(None) };
    let there: Vec<usize> = present.to_vec::<bool>()?.iter().enumerate().filter_map(|(p, t)| t.then_some(p)).collect();
    if there.is_empty() {
        return Ok(None);
    }
    let step = (there.len() / count).max(1);
    let picked: Vec<usize> = there.into_iter().step_by(step).take(count).collect();
    let index = Tensor::from_slice(&picked.iter().map(|p| *p as i64).collect::<Vec<_>>())?;
    Ok(Some((select(set, &index)?, picked)))
}

/// What the model makes: values again, on the way from one to another, new ones.
fn made(body: &mut String, model: &Representation, look: &Look) -> Result<()> {
    let modalities: Vec<Modality> = model.input_modalities().cloned().collect();
    let words = |row: usize| {
        let about = &look.manifest.rows[look.test.rows[row]];
        match about.values.get(&Modality::TEXT).and_then(|v| v.first()) {
            Some(mm_core::Source::Text(text)) => text.clone(),
            _ => about.id.clone(),
        }
    };
    let mut charts = String::new();
    for to in &modalities {
        let Some(values) = model.values(to) else { continue };
        let Some((set, rows)) = some(&look.test.set, to, 12)? else { continue };
        let own = &set.parts[to].0.values;
        match values {
            ValueType::Tokens(_) => {
                let Some(InputConfig::Characters { alphabet, .. }) = model.config().inputs.get(to.name()) else {
                    continue;
                };
                let Some(again) = model.reconstruct(&set.only(&[to]), to)? else { continue };
                let mut lines = vec![vec!["held-out text".to_owned(), "made from its code".to_owned()]];
                let length = own.size(1)? as usize;
                let (a, b) = (own.to_vec::<i64>()?, again.to_vec::<i64>()?);
                for (x, y) in a.chunks(length).zip(b.chunks(length)) {
                    lines.push(vec![escape(&decode_chars(x, alphabet)), escape(&decode_chars(y, alphabet))]);
                }
                body.push_str("<h2>Texts, and what is made of their codes</h2>");
                body.push_str(&table(&lines));
                if let Some(maker) = model.learner().decoder() {
                    let steps = between(&model.encode(&set.only(&[to]))?, 5)?;
                    let said = maker.decode(&steps, to)?.to_vec::<i64>()?;
                    let mut lines = vec![vec!["on the way from one text to another".to_owned()]];
                    lines.extend(said.chunks(length).map(|s| vec![escape(&decode_chars(s, alphabet))]));
                    body.push_str(&table(&lines));
                }
            }
            ValueType::UnitInterval | ValueType::Real if own.rank() == 4 => {
                let columns = rows.len();
                if let Some(again) = model.reconstruct(&set.only(&[to]), to)? {
                    let both = Tensor::cat(&[own, &again], 0)?;
                    charts.push_str(&figure(
                        &both,
                        columns,
                        960,
                        &format!("{to}: held out (above), made from its code (below)"),
                    )?);
                }
                for from in modalities.iter().filter(|m| *m != to) {
                    let Some((set, rows)) = some(&look.test.set, from, 12)? else { continue };
                    let own = &set.parts[to].0.values;
                    let Some(again) = model.reconstruct(&set.only(&[from]), to)? else { continue };
                    let said = rows.iter().map(|r| words(*r)).collect::<Vec<_>>().join(" · ");
                    let caption =
                        format!("{to}: held out (above), made from its {from} alone (below): {}", escape(&said));
                    charts.push_str(&figure(&Tensor::cat(&[own, &again], 0)?, rows.len(), 960, &caption)?);
                }
                let Some(maker) = model.learner().decoder() else { continue };
                if model.learner().reconstruct(&set.only(&[to]), to)?.is_some() {
                    let steps = between(&model.encode(&set.only(&[to]))?, 8)?;
                    charts.push_str(&figure(
                        &maker.decode(&steps, to)?,
                        10,
                        960,
                        &format!("{to}: on the way from one held-out to another"),
                    )?);
                }
                manual_seed(1);
                if let Some(codes) = maker.sample_prior(48, None)? {
                    charts.push_str(&figure(
                        &maker.decode(&codes, to)?,
                        16,
                        960,
                        &format!("{to}: drawn from the prior"),
                    )?);
                } else {
                    for from in modalities.iter().filter(|m| *m != to) {
                        let Some((set, rows)) = some(&look.test.set, from, 12)? else { continue };
                        let mut lines = vec![set.parts[to].0.values.clone()];
                        for _ in 0..3 {
                            if let Some(codes) = maker.sample_prior(set.rows, Some(&set.only(&[from])))? {
                                lines.push(maker.decode(&codes, to)?);
                            }
                        }
                        let said = rows.iter().map(|r| words(*r)).collect::<Vec<_>>().join(" · ");
                        let caption = format!(
                            "{to}: held out (above), made from its {from} (three times below): {}",
                            escape(&said)
                        );
                        let all = Tensor::cat(&lines.iter().collect::<Vec<_>>(), 0)?;
                        charts.push_str(&figure(&all, rows.len(), 960, &caption)?);
                    }
                }
            }
            _ => {}
        }
    }
    if !charts.is_empty() {
        let _ = write!(body, "<h2>What it makes</h2><div class=\"made\">{charts}</div>");
    }
    Ok(())
}

/// Codes on the straight line from each odd one to the next, ends included: `lines` pairs, `steps + 2` codes each.
fn between(codes: &Tensor, steps: i64) -> Result<Tensor> {
    let pairs = (codes.size(0)? / 2).clamp(0, 4);
    let mut out = Vec::new();
    for pair in 0..pairs {
        let (a, b) = (codes.narrow(0, 2 * pair, 1)?, codes.narrow(0, 2 * pair + 1, 1)?);
        for step in 0..steps + 2 {
            let share = step as f64 / (steps + 1) as f64;
            out.push(a.mul_scalar(1.0 - share)?.add(&b.mul_scalar(share)?)?);
        }
    }
    if out.is_empty() {
        return Ok(codes.clone());
    }
    Ok(Tensor::cat(&out.iter().collect::<Vec<_>>(), 0)?)
}

/// The held-out codes on a plane, by label.
fn map(body: &mut String, model: &Representation, look: &Look) -> Result<()> {
    let count = look.test.rows.len().min(600);
    let modality =
        model.input_modalities().find(|m| model.learner().accepts(m) && look.test.set.parts.contains_key(m)).cloned();
    let Some(modality) = modality else { return Ok(()) };
    let Some((set, rows)) = some(&look.test.set, &modality, count)? else { return Ok(()) };
    if rows.len() < 8 {
        return Ok(());
    }
    let points = plane(&model.encode(&set)?, 30.0, 400)?;
    let mut groups: BTreeMap<String, Vec<[f64; 2]>> = BTreeMap::new();
    for (row, point) in rows.iter().zip(points) {
        let label = look.manifest.rows[look.test.rows[*row]].label.clone().unwrap_or_else(|| "rows".into());
        groups.entry(label).or_default().push(point);
    }
    let mut groups: Vec<(String, Vec<[f64; 2]>)> = groups.into_iter().collect();
    groups.sort_by_key(|(_, points)| std::cmp::Reverse(points.len()));
    let rest: Vec<[f64; 2]> = groups.split_off(groups.len().min(5)).into_iter().flat_map(|(_, p)| p).collect();
    if !rest.is_empty() {
        groups.push(("others".into(), rest));
    }
    let _ = write!(
        body,
        "<h2>Held-out codes on a plane</h2><div class=\"charts\"><figure>{}<figcaption>t-SNE, by label</figcaption></figure></div>",
        scatter(&groups, &[])?
    );
    Ok(())
}

/// Every figure that training logged.
pub(super) fn curves(body: &mut String, run: &std::path::Path) -> Result<()> {
    let mut all: BTreeMap<String, [Vec<(f64, f64)>; 2]> = BTreeMap::new();
    for metric in Run::read_metrics(run)? {
        let place = usize::from(metric.split != "train");
        for (key, value) in metric.values {
            if !["lr", "samples_per_second", "negative_loss"].contains(&key.as_str()) {
                all.entry(key).or_default()[place].push((metric.epoch, value));
            }
        }
    }
    body.push_str("<h2>Learning</h2><div class=\"charts\">");
    for (name, [train, held]) in all {
        let mut both = vec![Line { name: "training".into(), points: train }];
        if held.len() > 1 {
            both.push(Line { name: "held out".into(), points: held });
        }
        let title = escape(&name.replace('_', " "));
        let _ = write!(body, "<figure>{}<figcaption>{title}</figcaption></figure>", lines(&both, "epoch", &name)?);
    }
    body.push_str("</div>");
    Ok(())
}
