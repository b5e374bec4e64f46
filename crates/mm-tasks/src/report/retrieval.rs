//! The report of retrieval runs: how well one modality finds another, shown.

use super::{
    chart::{Line, lines, scatter},
    heat::gaze_picture,
    html::{escape, inline, page, table, thumbnail},
    map::plane,
};
use crate::{
    Error, Result,
    metrics::{RetrievalMetrics, mean_and_std},
    retrieval::{Embedded, Entry, Evaluation, Retrieval},
    task::{ProgressFn, TaskContext},
};
use mm_core::{Modality, Source, Tensor, seed::Rng};
use mm_data::Split;
use mm_train::Run;
use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A report: the page, and the figures of each run.
pub struct Report {
    /// One HTML file with everything inside it.
    pub html: String,
    /// The figures of each run on the side that was reported.
    pub evaluations: Vec<serde_json::Value>,
}

/// Reports runs that differ in their seed alone: figures with mean and spread, pictures of the first.
pub fn build(runs: &[PathBuf], split: Split, context: &TaskContext<'_>, on_progress: ProgressFn<'_>) -> Result<Report> {
    let mut evaluations = Vec::new();
    let mut shown = None;
    for run in runs {
        on_progress(&format!("evaluating {}", run.display()), evaluations.len(), runs.len());
        let model = Retrieval::load(run, context)?;
        let manifest = Arc::new(model.manifest()?);
        let (embedded, evaluation) = model.evaluated(&manifest, split, &mut |_, _, _| {})?;
        evaluations.push(evaluation);
        if shown.is_none() {
            shown = Some((model, manifest, embedded));
        }
    }
    let Some((model, manifest, embedded)) = shown else {
        return Err(Error::Config("a report needs at least one run".into()));
    };
    on_progress("drawing", 0, 1);
    let mut body = String::new();
    summary(&mut body, runs, &evaluations, split, manifest.rows.len(), &embedded)?;
    body.push_str("<h2>Finding one from the other</h2><p class=\"soft\">Share of queries whose own item is among the first 1, 5 and 10 candidates. ");
    let _ = write!(
        body,
        "Held-out {split} side; mean{} of {} run{}. Chance is a random order.</p>",
        if runs.len() > 1 { " ± spread (sample standard deviation)" } else { "" },
        runs.len(),
        if runs.len() > 1 { "s" } else { "" }
    );
    body.push_str(&direction_table(&evaluations, |e| &e.directions));
    if evaluations.iter().any(|e| e.directions != e.equal_captions) {
        body.push_str("<h2>The same, equal captions counted as right</h2><p class=\"soft\">Some items have the same caption; from it nobody could tell which was meant.</p>");
        body.push_str(&direction_table(&evaluations, |e| &e.equal_captions));
    }
    if evaluations.iter().any(|e| !e.attention.is_empty()) {
        body.push_str("<h2>By where one looks in the other</h2><p class=\"soft\">Pairs ranked by stacked cross attention (positions of one compared with what they find in the other), and by the sum of that and the vectors' cosine.</p>");
        body.push_str(&direction_table(&evaluations, |e| &e.attention));
    }
    languages(&mut body, &evaluations);
    curves(&mut body, runs)?;
    maps(&mut body, &model, context, &manifest, &embedded, split)?;
    examples(&mut body, &embedded)?;
    gazes(&mut body, &model, &embedded)?;
    confusions(&mut body, &embedded)?;
    let title = format!("Retrieval: {}", embedded.keys().map(Modality::name).collect::<Vec<_>>().join(", "));
    let json = evaluations.iter().map(serde_json::to_value).collect::<Result<_, _>>();
    Ok(Report { html: page(&title, &body), evaluations: json.map_err(|e| Error::Config(e.to_string()))? })
}

fn figure(values: &[f64], digits: usize) -> String {
    let (mean, spread) = mean_and_std(values);
    if values.len() > 1 {
        format!("{mean:.digits$} <span class=\"soft\">± {spread:.digits$}</span>")
    } else {
        format!("{mean:.digits$}")
    }
}

fn summary(
    body: &mut String,
    runs: &[PathBuf],
    evaluations: &[Evaluation],
    split: Split,
    rows: usize,
    embedded: &BTreeMap<Modality, Embedded>,
) -> Result<()> {
    let recall: Vec<f64> = evaluations
        .iter()
        .map(|e| e.directions.values().map(|m| m.recall[2]).sum::<f64>() / e.directions.len() as f64)
        .collect();
    let chance: Vec<f64> = evaluations
        .iter()
        .map(|e| e.directions.values().map(|m| m.chance[2]).sum::<f64>() / e.directions.len() as f64)
        .collect();
    let (mean, by_chance) = (mean_and_std(&recall).0, mean_and_std(&chance).0);
    let mut cards = vec![
        (format!("{mean:.2}"), format!("recall at 10, mean of all directions (chance {by_chance:.2})")),
        (rows.to_string(), "rows in the data".to_owned()),
    ];
    for (modality, e) in embedded {
        cards.push((e.entries.len().to_string(), format!("{modality} candidates on the {split} side")));
    }
    let results: Vec<serde_json::Value> = runs
        .iter()
        .filter_map(|r| serde_json::from_str(&std::fs::read_to_string(r.join("result.json")).ok()?).ok())
        .collect();
    let of = |key: &str| results.iter().filter_map(|r| r[key].as_f64()).collect::<Vec<_>>();
    if let (Some(_), Some(_)) = (of("seconds").first(), of("peak_memory_bytes").first()) {
        cards.push((format!("{:.0} s", mean_and_std(&of("seconds")).0), "to train one run, encoding included".into()));
        cards.push((
            format!("{:.2} GB", of("peak_memory_bytes").into_iter().fold(0.0, f64::max) / 1e9),
            "resident at most".into(),
        ));
    }
    body.push_str("<div class=\"cards\">");
    for (value, name) in cards {
        let _ = write!(body, "<div class=\"card\"><b>{value}</b><span>{}</span></div>", escape(&name));
    }
    body.push_str("</div>");
    Ok(())
}

fn direction_table(
    evaluations: &[Evaluation],
    of: impl Fn(&Evaluation) -> &BTreeMap<String, RetrievalMetrics>,
) -> String {
    let head = ["", "R@1", "R@5", "R@10", "median rank", "mAP", "chance R@1", "chance R@10", "queries", "candidates"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    let Some(first) = evaluations.first() else { return String::new() };
    for direction in of(first).keys() {
        let all: Vec<&RetrievalMetrics> = evaluations.iter().filter_map(|e| of(e).get(direction)).collect();
        let column = |f: &dyn Fn(&RetrievalMetrics) -> f64| all.iter().map(|m| f(m)).collect::<Vec<f64>>();
        let at_10 = mean_and_std(&column(&|m| m.recall[2])).0;
        rows.push(vec![
            escape(direction),
            figure(&column(&|m| m.recall[0]), 3),
            figure(&column(&|m| m.recall[1]), 3),
            format!(
                "{}<div class=\"bar\"><i style=\"width:{:.0}%\"></i></div>",
                figure(&column(&|m| m.recall[2]), 3),
                at_10 * 100.0
            ),
            figure(&column(&|m| m.median_rank), 1),
            figure(&column(&|m| m.map), 3),
            format!("{:.3}", mean_and_std(&column(&|m| m.chance[0])).0),
            format!("{:.3}", mean_and_std(&column(&|m| m.chance[2])).0),
            all.first().map_or(0, |m| m.queries).to_string(),
            all.first().map_or(0, |m| m.gallery).to_string(),
        ]);
    }
    table(&rows)
}

fn languages(body: &mut String, evaluations: &[Evaluation]) {
    let Some(first) = evaluations.first().filter(|e| !e.languages.is_empty()) else { return };
    body.push_str("<h2>By language</h2><p class=\"soft\">Queries of one language each. The same speakers are on both sides of the split: a new voice would be harder.</p>");
    for direction in first.languages.keys() {
        body.push_str(&language_table(direction, evaluations, |e| e.languages.get(direction)));
    }
    if !first.spelling.is_empty() {
        body.push_str("<h2>What is written</h2><p class=\"soft\">The text of a row in the language that is spoken, found among all of that language by its letters.</p>");
        body.push_str(&language_table("voice → its own words", evaluations, |e| Some(&e.spelling)));
    }
}

fn language_table<'e>(
    head: &str,
    evaluations: &'e [Evaluation],
    of: impl Fn(&'e Evaluation) -> Option<&'e BTreeMap<String, RetrievalMetrics>>,
) -> String {
    let mut rows =
        vec![[head, "R@1", "R@10", "median rank", "chance R@10", "queries", "candidates"].map(escape).to_vec()];
    for language in evaluations.first().and_then(&of).into_iter().flat_map(BTreeMap::keys) {
        let all: Vec<&RetrievalMetrics> = evaluations.iter().filter_map(|e| of(e)?.get(language)).collect();
        let column = |f: &dyn Fn(&RetrievalMetrics) -> f64| all.iter().map(|m| f(m)).collect::<Vec<f64>>();
        rows.push(vec![
            escape(language),
            figure(&column(&|m| m.recall[0]), 3),
            figure(&column(&|m| m.recall[2]), 3),
            figure(&column(&|m| m.median_rank), 1),
            format!("{:.3}", mean_and_std(&column(&|m| m.chance[2])).0),
            all.first().map_or(0, |m| m.queries).to_string(),
            all.first().map_or(0, |m| m.gallery).to_string(),
        ]);
    }
    table(&rows) + "<br>"
}

fn curves(body: &mut String, runs: &[PathBuf]) -> Result<()> {
    let mut losses = Vec::new();
    let mut parts: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    let mut held: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    for (number, run) in runs.iter().enumerate() {
        let metrics = Run::read_metrics(run)?;
        let name = run.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let points = |key: &str| {
            metrics
                .iter()
                .filter(|m| m.split == "train")
                .filter_map(|m| Some((m.epoch, *m.values.get(key)?)))
                .collect::<Vec<_>>()
        };
        losses.push(Line { name, points: points("loss") });
        if number == 0 {
            for metric in &metrics {
                for (key, value) in &metric.values {
                    if let Some(pair) = key.strip_prefix("loss_") {
                        parts.entry(pair.replace('_', "–")).or_default().push((metric.epoch, *value));
                    }
                    if metric.split == "valid" && key.ends_with("_at_10") {
                        held.entry(key.replace("_at_10", "")).or_default().push((metric.epoch, *value));
                    }
                }
            }
        }
    }
    body.push_str("<h2>Learning</h2><div class=\"charts\">");
    let to_lines = |map: BTreeMap<String, Vec<(f64, f64)>>| {
        map.into_iter().map(|(name, points)| Line { name, points }).collect::<Vec<_>>()
    };
    let _ = write!(
        body,
        "<figure>{}<figcaption>Training loss of each run</figcaption></figure>",
        lines(&losses, "epoch", "loss")?
    );
    let _ = write!(
        body,
        "<figure>{}<figcaption>Its parts, first run</figcaption></figure>",
        lines(&to_lines(parts), "epoch", "loss")?
    );
    if held.values().any(|p| p.len() > 1) {
        let _ = write!(
            body,
            "<figure>{}<figcaption>Recall at 10 on the validation side, first run</figcaption></figure>",
            lines(&to_lines(held), "epoch", "recall at 10")?
        );
    }
    body.push_str("</div>");
    Ok(())
}

/// One entry an item, so that the map is not drowned by items with many clips.
fn one_an_item(embedded: &Embedded, most: usize) -> Result<(Tensor, Vec<String>)> {
    let mut seen = BTreeMap::new();
    for (place, entry) in embedded.entries.iter().enumerate() {
        seen.entry(entry.item.clone()).or_insert(place as i64);
    }
    let (items, places): (Vec<String>, Vec<i64>) = seen.into_iter().take(most).unzip();
    Ok((embedded.vectors.index_select(0, &Tensor::from_slice(&places)?)?, items))
}

fn maps(
    body: &mut String,
    model: &Retrieval,
    context: &TaskContext<'_>,
    manifest: &Arc<mm_data::Manifest>,
    after: &BTreeMap<Modality, Embedded>,
    split: Split,
) -> Result<()> {
    let fresh = model.untrained(context)?;
    let before = fresh.embed_side(manifest, split, &mut |_, _, _| {})?;
    body.push_str("<h2>The shared space, on a plane</h2><p class=\"soft\">t-SNE of all modalities together; lines join what shows the same. Before training each modality keeps to itself; after it, partners lie together.</p><div class=\"charts\">");
    for (name, embedded) in [("Before training", &before), ("After training", after)] {
        let mut vectors = Vec::new();
        let mut counts = Vec::new();
        for (modality, e) in embedded {
            let (v, items) = one_an_item(e, 300)?;
            vectors.push(v);
            counts.push((modality.to_string(), items));
        }
        let points = plane(&Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?, 20.0, 500)?;
        let mut groups = Vec::new();
        let mut by_item: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
        let mut at = 0;
        for (modality, items) in &counts {
            let own = points[at..at + items.len()].to_vec();
            for (item, point) in items.iter().zip(&own) {
                by_item.entry(item).or_default().push(*point);
            }
            at += items.len();
            groups.push((modality.clone(), own));
        }
        let links: Vec<_> = by_item.values().flat_map(|p| p.windows(2).map(|w| (w[0], w[1]))).collect();
        let _ = write!(body, "<figure>{}<figcaption>{name}</figcaption></figure>", scatter(&groups, &links)?);
    }
    body.push_str("</div>");
    Ok(())
}

fn show(entry: &Entry) -> String {
    match &entry.source {
        Source::Text(text) => format!("<span class=\"text\">{}</span>", escape(text)),
        Source::Path(path) if entry.language.is_some() => {
            let language = entry.language.as_deref().unwrap_or("");
            format!("♪ <b>{}</b> {}", escape(language), escape(&entry.text_or(path)))
        }
        Source::Path(path) => thumbnail(path, &entry.text),
        Source::Value(value) => escape(&value.to_string()),
    }
}

impl Entry {
    fn text_or(&self, path: &Path) -> String {
        if self.text.is_empty() {
            path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
        } else {
            self.text.clone()
        }
    }
}

fn top(query: &Tensor, gallery: &Embedded, count: i64) -> Result<Vec<(usize, f64)>> {
    let scores = gallery.vectors.matmul(&query.unsqueeze(1)?)?.squeeze(1)?;
    let (values, places) = scores.topk(count.min(gallery.entries.len() as i64))?;
    Ok(places.to_vec::<i64>()?.into_iter().map(|p| p as usize).zip(values.to_vec::<f64>()?).collect())
}

fn examples(body: &mut String, embedded: &BTreeMap<Modality, Embedded>) -> Result<()> {
    body.push_str("<h2>Held-out queries and their first five</h2><p class=\"soft\">Drawn by chance, not by success. Right ones are marked.</p>");
    let mut random = Rng::new(&[2025]);
    for (from, queries) in embedded {
        for (to, gallery) in embedded {
            let visible = *to == Modality::IMAGE || *to == Modality::TEXT;
            if from == to || !visible {
                continue;
            }
            let _ = write!(body, "<h3>{from} → {to}</h3>");
            let mut places: Vec<usize> = (0..queries.entries.len()).collect();
            random.shuffle(&mut places);
            for place in places.into_iter().take(6) {
                let entry = &queries.entries[place];
                let hits = top(&queries.vectors.select(0, place as i64)?, gallery, 5)?;
                let _ = write!(body, "<div class=\"query\"><div>{}</div><div class=\"hits\">", show(entry));
                for (hit, score) in hits {
                    let found = &gallery.entries[hit];
                    let right = if found.item == entry.item { " right" } else { "" };
                    let _ = write!(
                        body,
                        "<div class=\"hit{right}\">{}<span class=\"soft\">{score:.2}</span></div>",
                        show(found)
                    );
                }
                body.push_str("</div></div>");
            }
        }
    }
    Ok(())
}

/// Where some held-out values look in their partners.
fn gazes(body: &mut String, model: &Retrieval, embedded: &BTreeMap<Modality, Embedded>) -> Result<()> {
    let Some([asking, asked]) = model.looks() else { return Ok(()) };
    let (Some(queries), Some(keys)) = (embedded.get(asking), embedded.get(asked)) else { return Ok(()) };
    let _ = write!(
        body,
        "<h2>Where {asking} looks in {asked}</h2><p class=\"soft\">Held-out pairs drawn by chance; first what is looked at, then where each word looks, bright where most.</p>"
    );
    let mut places: Vec<usize> = (0..queries.entries.len()).collect();
    Rng::new(&[2026]).shuffle(&mut places);
    let pairs = places.into_iter().filter_map(|place| {
        let entry = &queries.entries[place];
        Some((entry, keys.entries.iter().find(|k| k.item == entry.item)?))
    });
    for (query, key) in pairs.take(6) {
        let Some(gaze) = model.look(&query.source, &key.source)? else { continue };
        let picture = inline(&gaze_picture(&gaze)?, "where each word looks").unwrap_or_default();
        let _ = write!(body, "<figure>{picture}<figcaption>{}</figcaption></figure>", show(query));
    }
    Ok(())
}

fn confusions(body: &mut String, embedded: &BTreeMap<Modality, Embedded>) -> Result<()> {
    let (Some((from, queries)), Some((to, gallery))) =
        (embedded.get_key_value(&Modality::IMAGE), embedded.get_key_value(&Modality::TEXT))
    else {
        return Ok(());
    };
    let mut wrong = Vec::new();
    for (place, entry) in queries.entries.iter().enumerate() {
        let hits = top(&queries.vectors.select(0, place as i64)?, gallery, 1)?;
        if let Some((hit, score)) = hits
            .first()
            .filter(|(h, _)| gallery.entries[*h].item != entry.item && gallery.entries[*h].text != entry.text)
        {
            wrong.push((*score, place, *hit));
        }
    }
    wrong.sort_by(|a, b| b.0.total_cmp(&a.0));
    let _ = write!(
        body,
        "<h2>Ten confusions</h2><p class=\"soft\">{from} → {to}: wrong, and surest of it.</p><div class=\"wide\"><table><thead><tr><th>Picture</th><th>What it was taken for</th><th>What it is</th><th>cosine</th></tr></thead>"
    );
    for (score, place, hit) in wrong.into_iter().take(10) {
        let entry = &queries.entries[place];
        let _ = write!(
            body,
            "<tr><td>{}</td><td style=\"white-space:normal\">{}</td><td style=\"white-space:normal\">{}</td><td>{score:.2}</td></tr>",
            show(entry),
            show(&gallery.entries[hit]),
            escape(&entry.text)
        );
    }
    body.push_str("</table></div>");
    Ok(())
}
