//! `--data` and `--out` of the commands that generate text: a whole table, resumable, one JSON line a row.

use crate::{
    args::columns::TableArgs,
    context::{Context, stop_on_interrupt},
    exit::{interrupted, usage},
    output,
    progress::ItemProgress,
};
use anyhow::{Context as _, Result, bail};
use mm_core::{Modality, Source};
use mm_data::Manifest;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    sync::atomic::Ordering,
};

/// What to do with a row or value that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnError {
    /// Report it and go on.
    Skip,
    /// End the command.
    Fail,
}

/// A whole table at once.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Whole tables")]
pub(crate) struct BatchArgs {
    /// Process every row of this table (JSONL, CSV, TSV or Parquet), whose columns of images, audio and video
    /// name files or hold their bytes. After an
    /// interruption the same command continues where it stopped.
    #[arg(long, value_name = "FILE", requires = "out")]
    pub(crate) data: Option<PathBuf>,
    /// File for the results, one JSON line a row (.jsonl).
    #[arg(long, value_name = "FILE", requires = "data")]
    pub(crate) out: Option<PathBuf>,
    /// What to do with a row that cannot be read: skip (its line holds the error) or fail.
    #[arg(long, value_name = "POLICY", value_enum, default_value = "skip", requires = "data")]
    on_error: OnError,
    #[command(flatten)]
    pub(crate) table: TableArgs,
}

/// A row of such a table.
pub(crate) struct BatchRow {
    pub(crate) id: String,
    pub(crate) modality: Modality,
    pub(crate) path: String,
    pub(crate) source: Source,
    pub(crate) cells: BTreeMap<String, String>,
}

impl BatchRow {
    /// A cell as text; none when it is empty.
    pub(crate) fn cell(&self, column: &str) -> Option<String> {
        self.cells.get(column).cloned().filter(|t| !t.trim().is_empty())
    }
}

impl BatchArgs {
    /// Processes the table in batches; `process` returns a JSON object for each row of a batch, or why there is none.
    pub(crate) fn run(
        &self,
        kinds: &[&str],
        batch_size: usize,
        context: &Context,
        mut process: impl FnMut(&[BatchRow]) -> Vec<Result<Value>>,
    ) -> Result<()> {
        let (Some(data), Some(out)) = (&self.data, &self.out) else { return Ok(()) };
        if out.extension().is_none_or(|e| e != "jsonl") {
            usage!("--out {}: expected a file name that ends in .jsonl", out.display());
        }
        let rows = read_rows(data, kinds, &self.table)?;
        let resumed = finished_rows(out, &rows)?;
        let stop = stop_on_interrupt("this batch")?;
        let cannot_write = || format!("{} cannot be written", out.display());
        let mut file = OpenOptions::new().create(true).append(true).open(out).with_context(cannot_write)?;
        let mut progress = ItemProgress::new();
        let (mut failed, mut done) = (Failures::default(), resumed);
        for batch in rows[resumed..].chunks(batch_size.max(1)) {
            if stop.load(Ordering::Relaxed) {
                interrupted!(
                    "{done} of {} rows are in {}; the same command continues from there",
                    rows.len(),
                    out.display()
                );
            }
            let lines = self.lines(data, batch, process(batch), &mut failed)?;
            file.write_all(lines.as_bytes()).with_context(cannot_write)?;
            done += batch.len();
            progress.update("rows", done, rows.len());
        }
        progress.finish();
        file.sync_all().with_context(cannot_write)?;
        if context.json {
            output::line(json!({
                "out": out, "rows": rows.len(), "resumed": resumed,
                "failed": {"count": failed.count, "examples": failed.examples},
            }));
        } else {
            let resumed = if resumed > 0 { format!(", {resumed} of them from an earlier run") } else { String::new() };
            output::line(format!("{}: {} rows{resumed}, {} failed", out.display(), rows.len(), failed.count));
        }
        Ok(())
    }

    /// The lines of a batch.
    fn lines(
        &self,
        data: &Path,
        batch: &[BatchRow],
        results: Vec<Result<Value>>,
        failed: &mut Failures,
    ) -> Result<String> {
        let mut text = String::new();
        for (row, result) in batch.iter().zip(results) {
            let mut line = match result {
                Ok(line) => line,
                Err(error) if self.on_error == OnError::Fail => {
                    return Err(error.context(format!("{}: row {}", data.display(), row.id)));
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    failed.add(row, &reason);
                    json!({"input": row.path, "modality": row.modality.name(), "error": reason})
                }
            };
            line["id"] = Value::from(row.id.clone());
            text += &(line.to_string() + "\n");
        }
        Ok(text)
    }
}

/// Rows that failed: how many, and the first of them.
#[derive(Default)]
struct Failures {
    count: usize,
    examples: Vec<Value>,
}

impl Failures {
    const MAX_EXAMPLES: usize = 20;

    fn add(&mut self, row: &BatchRow, reason: &str) {
        self.count += 1;
        if self.count <= Self::MAX_EXAMPLES {
            output::warning(format!("{}: {reason}", row.id));
            self.examples.push(json!({"row": row.id, "path": row.path, "reason": reason}));
        }
    }
}

/// The rows of a table, each with its first file among `kinds`.
fn read_rows(data: &Path, kinds: &[&str], table: &TableArgs) -> Result<Vec<BatchRow>> {
    let mut config = table.config(data, &["question"]);
    // Rows keep their ids even where these repeat.
    config.columns.id = Some(String::new());
    let manifest = Manifest::open_modalities(&config, Path::new("."), Some(kinds))?;
    let folder = data.parent().unwrap_or(Path::new(""));
    let mut rows = Vec::new();
    for row in manifest.rows {
        let first = |modality: Modality| Some((modality.clone(), row.values.get(&modality)?.first()?.clone()));
        let Some((modality, source)) = kinds.iter().find_map(|kind| first(Modality::from(*kind))) else {
            bail!("{}: row {} has none of the columns {}", data.display(), row.number, kinds.join(", "));
        };
        let path = match &source {
            Source::Path(path) => path.strip_prefix(folder).unwrap_or(path).display().to_string(),
            other => mm_data::source_name(other),
        };
        let id = row.cells.get("id").cloned().unwrap_or_else(|| row.number.to_string());
        rows.push(BatchRow { id, modality, path, source, cells: row.cells });
    }
    Ok(rows)
}

/// The number of rows that an earlier, interrupted command wrote; an incomplete last line is removed.
fn finished_rows(out: &Path, rows: &[BatchRow]) -> Result<usize> {
    let Ok(text) = std::fs::read_to_string(out) else { return Ok(0) };
    let complete = text.rfind('\n').map_or(0, |n| n + 1);
    if complete < text.len() {
        let file: File = OpenOptions::new().write(true).open(out)?;
        file.set_len(complete as u64)?;
    }
    let mut count = 0;
    for (line, row) in text[..complete].lines().zip(rows) {
        let id = serde_json::from_str::<Value>(line).ok().and_then(|v| v["id"].as_str().map(ToOwned::to_owned));
        if id.as_deref() != Some(row.id.as_str()) {
            bail!("{}: line {} is not of row {}; choose another --out, or remove it", out.display(), count + 1, row.id);
        }
        count += 1;
    }
    if text[..complete].lines().count() > rows.len() {
        bail!("{}: has more lines than the table has rows; choose another --out, or remove it", out.display());
    }
    Ok(count)
}
