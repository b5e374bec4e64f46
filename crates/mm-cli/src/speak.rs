//! What the commands that generate text share: flags of generation, and whole tables, resumable.

use anyhow::{Context as _, Result, bail};
use mm_core::{Modality, Source};
use mm_reason::generate::{GenerationConfig, OutputConstraint};
use serde_json::Value;
use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// Flags of generation; what is left away is as the model's folder says.
#[derive(clap::Args, Clone)]
pub(crate) struct Generation {
    /// Most tokens that are said.
    #[arg(long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,
    /// Fewest tokens before the end may come.
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Beams; 1 takes the likeliest token at each step.
    #[arg(long, value_name = "N")]
    beams: Option<usize>,
    /// Above 0 longer texts are favoured among beams, below 0 shorter ones.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// Draw tokens, the more freely the higher; without it the likeliest comes.
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Draw from so many of the likeliest tokens only; 0 for all.
    #[arg(long, value_name = "K", requires = "temperature")]
    top_k: Option<usize>,
    /// Draw from the likeliest tokens that together have this probability.
    #[arg(long, value_name = "P", requires = "temperature")]
    top_p: Option<f64>,
    /// Draw from tokens with at least this share of the likeliest's probability.
    #[arg(long, value_name = "P", requires = "temperature")]
    min_p: Option<f64>,
    /// Make tokens that were there less likely (above 1).
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f64>,
    /// No run of so many tokens comes twice.
    #[arg(long, value_name = "N")]
    no_repeat_ngram: Option<usize>,
    /// What is said ends where this text comes; it is left away, and what follows it. May be repeated.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// What is said matches this regular expression as a whole.
    #[arg(long, value_name = "RE", conflicts_with = "json_schema")]
    regex: Option<String>,
    /// What is said is JSON after the schema in this file.
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Drawing is a function of it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Generation {
    /// These flags over what a folder says.
    pub(crate) fn over(&self, base: &GenerationConfig) -> Result<GenerationConfig> {
        let form = match (&self.regex, &self.json_schema) {
            (Some(text), _) => Some(OutputConstraint::Regex(text.clone())),
            (None, Some(file)) => {
                let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
                let schema = serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", file.display()))?;
                Some(OutputConstraint::JsonSchema(schema))
            }
            (None, None) => None,
        };
        Ok(GenerationConfig {
            max_new_tokens: self.max_new_tokens.unwrap_or(base.max_new_tokens),
            min_new_tokens: self.min_new_tokens.unwrap_or(base.min_new_tokens),
            num_beams: self.beams.unwrap_or(if self.temperature.is_some() { 1 } else { base.num_beams }),
            length_penalty: self.length_penalty.unwrap_or(base.length_penalty),
            do_sample: self.temperature.is_some(),
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram.unwrap_or(base.no_repeat_ngram_size),
            stop_strings: if self.stop.is_empty() { base.stop_strings.clone() } else { self.stop.clone() },
            constraint: form.or_else(|| base.constraint.clone()),
            seed: self.seed,
            ..base.clone()
        })
    }

    /// Refuses what runs of one's own vocabulary cannot do.
    pub(crate) fn plain(&self, what: &str) -> Result<()> {
        if self.regex.is_some() || self.json_schema.is_some() || !self.stop.is_empty() {
            bail!("--regex, --json-schema, --stop: {what}");
        }
        Ok(())
    }
}

/// Where a model's folder is; of a run that learned a checkpoint further, what it learned.
pub(crate) fn folder(name: &Path) -> PathBuf {
    let folder = mm_repr::locate(name, Path::new("."));
    mm_tasks::finetuning::learned(&folder).unwrap_or(folder)
}

/// A whole table at once.
#[derive(clap::Args, Clone)]
pub(crate) struct Whole {
    /// Do it for every row of this table (JSONL, CSV, TSV or Parquet), whose columns `image`, `audio`, `video` name files. Interrupted, the
    /// same command goes on where it stopped.
    #[arg(long, value_name = "TABLE", requires = "out")]
    pub(crate) data: Option<PathBuf>,
    /// Where the lines go (.jsonl).
    #[arg(long, value_name = "FILE", requires = "data")]
    pub(crate) out: Option<PathBuf>,
    /// What a row that cannot be read does: skip (its line says why) or fail.
    #[arg(long, value_name = "WHAT", default_value = "skip", value_parser = ["skip", "fail"])]
    on_broken: String,
}

/// A row of such a table.
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) modality: Modality,
    pub(crate) file: String,
    pub(crate) source: Source,
    pub(crate) cells: mm_data::Cells,
}

impl Asked {
    /// A cell as text.
    pub(crate) fn cell(&self, column: &str) -> Option<String> {
        self.cells.get(column).and_then(mm_data::cell_text).filter(|t| !t.trim().is_empty())
    }
}

impl Whole {
    /// Goes through the table; `body` makes of each piece of rows a line each, or says why not.
    pub(crate) fn each(
        &self,
        kinds: &[&str],
        piece: usize,
        json: bool,
        mut body: impl FnMut(&[Asked]) -> Vec<Result<Value>>,
    ) -> Result<()> {
        let (Some(data), Some(out)) = (&self.data, &self.out) else { return Ok(()) };
        if out.extension().is_none_or(|e| e != "jsonl") {
            bail!("--out {}: wanted a name that ends in .jsonl", out.display());
        }
        let table = mm_data::read_table(data, None)?;
        let folder = data.parent().unwrap_or(Path::new("."));
        let mut rows = Vec::new();
        for (number, cells) in table.into_iter().enumerate() {
            let found = kinds.iter().find_map(|k| Some((*k, cells.get(*k).and_then(first)?)));
            let Some((kind, file)) = found else {
                bail!("{}: row {} has none of the columns {}", data.display(), number + 1, kinds.join(", "));
            };
            let id = cells.get("id").and_then(mm_data::cell_text).unwrap_or_else(|| (number + 1).to_string());
            let source = Source::File(folder.join(&file));
            rows.push(Asked { id, modality: Modality::from(kind), file, source, cells });
        }
        let done = finished(out, &rows)?;
        let stop: std::sync::Arc<AtomicBool> = crate::interrupt("this piece")?;
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(out)
            .with_context(|| format!("{} cannot be written", out.display()))?;
        let mut steps = crate::progress::Steps::new();
        let (mut broken, mut at) = (0, done);
        for part in rows[done..].chunks(piece.max(1)) {
            if stop.load(Ordering::Relaxed) {
                bail!("stopped after {at} of {} rows; the same command goes on from here", rows.len());
            }
            let mut text = String::new();
            for (row, line) in part.iter().zip(body(part)) {
                let mut line = match line {
                    Ok(line) => line,
                    Err(error) if self.on_broken == "fail" => {
                        return Err(error.context(format!("{}: row {}", data.display(), row.id)));
                    }
                    Err(error) => {
                        broken += 1;
                        if broken <= 20 {
                            eprintln!("mm: {}: {error:#}", row.id);
                        }
                        serde_json::json!({"input": row.file, "error": format!("{error:#}")})
                    }
                };
                line["id"] = Value::from(row.id.clone());
                text += &(line.to_string() + "\n");
            }
            file.write_all(text.as_bytes()).with_context(|| format!("{} cannot be written", out.display()))?;
            at += part.len();
            steps.tell("rows", at, rows.len());
        }
        steps.end();
        file.sync_all()?;
        if json {
            crate::output::line(serde_json::json!({"out": out, "rows": rows.len(), "kept": done, "broken": broken}));
        } else {
            let kept = if done > 0 { format!(", {done} of them from before") } else { String::new() };
            crate::output::line(format!(
                "{}: {} rows{kept}, {broken} that could not be read",
                out.display(),
                rows.len()
            ));
        }
        Ok(())
    }
}

/// The first file of a cell, which may be a list.
fn first(value: &Value) -> Option<String> {
    match value {
        Value::Array(list) => list.first().and_then(first),
        Value::Object(map) => map.get("file").and_then(first),
        other => mm_data::cell_text(other).filter(|t| !t.trim().is_empty()),
    }
}

/// How many rows of an earlier, interrupted run stand in a file; a line that was cut off is removed.
fn finished(out: &Path, rows: &[Asked]) -> Result<usize> {
    let Ok(text) = std::fs::read_to_string(out) else { return Ok(0) };
    let whole = text.rfind('\n').map_or(0, |n| n + 1);
    if whole < text.len() {
        OpenOptions::new().write(true).open(out)?.set_len(whole as u64)?;
    }
    let mut count = 0;
    for (line, row) in text[..whole].lines().zip(rows) {
        let id = serde_json::from_str::<Value>(line).ok().and_then(|v| v["id"].as_str().map(ToOwned::to_owned));
        if id.as_deref() != Some(row.id.as_str()) {
            bail!("{}: line {} is not of row {}; name another --out, or remove it", out.display(), count + 1, row.id);
        }
        count += 1;
    }
    if text[..whole].lines().count() > rows.len() {
        bail!("{}: has more lines than the table has rows; name another --out, or remove it", out.display());
    }
    Ok(count)
}
