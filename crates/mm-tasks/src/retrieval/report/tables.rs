//! Cards and tables of a retrieval report.

use super::super::{EmbeddedSplit, RetrievalEvaluation};
use crate::metrics::{RetrievalMetrics, mean_and_std};
use mm_core::Modality;
use mm_data::Split;
use serde::Serialize;
use std::{collections::BTreeMap, path::PathBuf};

#[derive(Serialize)]
pub(super) struct Card {
    value: String,
    name: String,
}

#[derive(Serialize)]
struct Cell {
    mean: String,
    std: Option<String>,
    /// Length of a bar, in percent.
    bar: Option<u32>,
}

#[derive(Serialize)]
struct TableRow {
    name: String,
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Table {
    header: Vec<String>,
    rows: Vec<TableRow>,
}

#[derive(Serialize)]
pub(super) struct Section {
    title: &'static str,
    note: String,
    tables: Vec<Table>,
}

fn cell(values: &[f64], digits: usize) -> Cell {
    let (mean, std) = mean_and_std(values);
    Cell { mean: format!("{mean:.digits$}"), std: (values.len() > 1).then(|| format!("{std:.digits$}")), bar: None }
}

fn plain(text: String) -> Cell {
    Cell { mean: text, std: None, bar: None }
}

pub(super) fn cards(
    runs: &[PathBuf],
    evaluations: &[RetrievalEvaluation],
    split: Split,
    rows: usize,
    embedded: &BTreeMap<Modality, EmbeddedSplit>,
) -> Vec<Card> {
    let (recall, chance): (Vec<f64>, Vec<f64>) = evaluations.iter().map(RetrievalEvaluation::mean_recall_at_10).unzip();
    let (recall, chance) = (mean_and_std(&recall).0, mean_and_std(&chance).0);
    let card = |value: String, name: String| Card { value, name };
    let mut cards = vec![
        card(format!("{recall:.2}"), format!("recall_at_10, mean of all directions (chance {chance:.2})")),
        card(rows.to_string(), "rows in the data set".to_owned()),
    ];
    let total: usize = embedded.values().map(|e| e.entries.len()).sum();
    let candidates: Vec<String> = embedded.iter().map(|(m, e)| format!("{} {m}", e.entries.len())).collect();
    cards.push(card(total.to_string(), format!("candidates in the {split} split: {}", candidates.join(", "))));
    let results: Vec<serde_json::Value> = runs
        .iter()
        .filter_map(|r| serde_json::from_str(&std::fs::read_to_string(r.join("result.json")).ok()?).ok())
        .collect();
    let values = |key: &str| results.iter().filter_map(|r| r[key].as_f64()).collect::<Vec<_>>();
    let (seconds, memory) = (values("seconds"), values("peak_memory_bytes"));
    if !seconds.is_empty() && !memory.is_empty() {
        let mean = mean_and_std(&seconds).0;
        cards.push(card(format!("{mean:.0} s"), "to train one run, encoding included".into()));
        let peak = memory.into_iter().fold(0.0, f64::max) / 1e9;
        cards.push(card(format!("{peak:.2} GB"), "peak memory".into()));
    }
    cards
}

pub(super) fn sections(evaluations: &[RetrievalEvaluation], split: Split) -> Vec<Section> {
    let Some(first) = evaluations.first() else { return Vec::new() };
    let count = evaluations.len();
    let spread = if count > 1 { " ± sample standard deviation" } else { "" };
    let mut sections = vec![Section {
        title: "Retrieval",
        note: format!(
            "Share of queries with a match among the first 1, 5 and 10 results, on the {split} split; mean{spread} of {count} run(s). Chance is \
             a random ranking."
        ),
        tables: vec![direction_table(evaluations, |e| &e.directions)],
    }];
    if evaluations.iter().any(|e| e.directions != e.equal_text_directions) {
        sections.push(Section {
            title: "Retrieval with equal texts as matches",
            note: "Some items have the same text, so no query can distinguish them.".into(),
            tables: vec![direction_table(evaluations, |e| &e.equal_text_directions)],
        });
    }
    if !first.cross_attention.is_empty() {
        sections.push(Section {
            title: "Ranking by cross attention",
            note: "Pairs ranked by stacked cross attention; then by its sum with the cosine of the vectors.".into(),
            tables: vec![
                direction_table(evaluations, |e| &e.cross_attention),
                direction_table(evaluations, |e| &e.cross_attention_and_cosine),
            ],
        });
    }
    if !first.languages.is_empty() {
        let directions = first.languages.keys();
        sections.push(Section {
            title: "By language",
            note: "Queries of one language each. The same speakers are in all splits; new speakers would be harder."
                .into(),
            tables: directions.map(|d| language_table(d, evaluations, |e| e.languages.get(d))).collect(),
        });
    }
    if !first.transcripts.is_empty() {
        sections.push(Section {
            title: "Speech to transcript",
            note: "The text of the row in the spoken language, ranked among all texts of that language by character n-grams.".into(),
            tables: vec![language_table("speech_to_transcript", evaluations, |e| Some(&e.transcripts))],
        });
    }
    sections
}

type Metric<'f> = &'f dyn Fn(&RetrievalMetrics) -> f64;

fn direction_table(
    evaluations: &[RetrievalEvaluation],
    directions: impl Fn(&RetrievalEvaluation) -> &BTreeMap<String, RetrievalMetrics>,
) -> Table {
    let header = ["", "R@1", "R@5", "R@10", "median rank", "mAP", "chance R@1", "chance R@10", "queries", "candidates"];
    let names = evaluations.first().map(&directions).into_iter().flat_map(BTreeMap::keys);
    let row = |name: &String| {
        let all: Vec<&RetrievalMetrics> = evaluations.iter().filter_map(|e| directions(e).get(name)).collect();
        let column = |f: Metric<'_>| all.iter().map(|m| f(m)).collect::<Vec<f64>>();
        let mut at_10 = cell(&column(&|m| m.recall[2]), 3);
        at_10.bar = Some((mean_and_std(&column(&|m| m.recall[2])).0 * 100.0).round() as u32);
        let chance = |k: usize| plain(format!("{:.3}", mean_and_std(&column(&|m| m.chance[k])).0));
        let cells = vec![
            cell(&column(&|m| m.recall[0]), 3),
            cell(&column(&|m| m.recall[1]), 3),
            at_10,
            cell(&column(&|m| m.median_rank), 1),
            cell(&column(&|m| m.map), 3),
            chance(0),
            chance(2),
            plain(all.first().map_or(0, |m| m.queries).to_string()),
            plain(all.first().map_or(0, |m| m.gallery).to_string()),
        ];
        TableRow { name: name.clone(), cells }
    };
    Table { header: header.map(ToOwned::to_owned).to_vec(), rows: names.map(row).collect() }
}

fn language_table<'e>(
    title: &str,
    evaluations: &'e [RetrievalEvaluation],
    languages: impl Fn(&'e RetrievalEvaluation) -> Option<&'e BTreeMap<String, RetrievalMetrics>>,
) -> Table {
    let header = [title, "R@1", "R@10", "median rank", "chance R@10", "queries", "candidates"];
    let names = evaluations.first().and_then(&languages).into_iter().flat_map(BTreeMap::keys);
    let row = |language: &String| {
        let all: Vec<&RetrievalMetrics> = evaluations.iter().filter_map(|e| languages(e)?.get(language)).collect();
        let column = |f: Metric<'_>| all.iter().map(|m| f(m)).collect::<Vec<f64>>();
        let cells = vec![
            cell(&column(&|m| m.recall[0]), 3),
            cell(&column(&|m| m.recall[2]), 3),
            cell(&column(&|m| m.median_rank), 1),
            plain(format!("{:.3}", mean_and_std(&column(&|m| m.chance[2])).0)),
            plain(all.first().map_or(0, |m| m.queries).to_string()),
            plain(all.first().map_or(0, |m| m.gallery).to_string()),
        ];
        TableRow { name: language.clone(), cells }
    };
    Table { header: header.map(ToOwned::to_owned).to_vec(), rows: names.map(row).collect() }
}
