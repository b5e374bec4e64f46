//! `--data`, `--shards` and `--out` of the commands that generate text: whole tables, resumable, one JSON line a row.

mod lines;
mod provenance;

use crate::{
    args::{
        columns::TableArgs,
        output_path::refuse_url,
        shards::{FailedRow, LinesJob, ShardLines},
    },
    context::{Context, stop_on_interrupt},
    exit::{interrupted, usage},
    output,
    progress::ItemProgress,
};
use anyhow::{Result, bail};
use lines::OutputLines;
use mm_core::{Modality, Source, cells::Record, describe_error};
use mm_data::{ColumnInference, Manifest};
use mm_tasks::provenance::Provenance;
pub(crate) use provenance::{command_provenance, generation_options};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// Failed rows that are shown.
const MAX_EXAMPLES: usize = 20;

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
    /// Process every row of this table (JSONL, CSV, TSV or Parquet), whose columns of images, audio and video name
    /// files or hold their bytes. After an interruption the same command continues where it stopped; rows that failed
    /// are tried again.
    #[arg(long, value_name = "FILE", requires = "out")]
    pub(crate) data: Option<PathBuf>,
    /// Process each of several tables or WebDataset shards into the folder --out, for instance
    /// 'photos-{0000..0099}.tar'. Any number of workers on any hosts run the same command: each takes shards that are
    /// neither done nor taken by another, and ends when all are done.
    #[arg(long, value_name = "PATTERN", requires = "out", conflicts_with = "data")]
    pub(crate) shards: Option<PathBuf>,
    /// File for the results, one JSON line a row (.jsonl); with --shards a folder (or s3://, gs://, az://), with such a
    /// file for each.
    #[arg(long, value_name = "PATH")]
    pub(crate) out: Option<PathBuf>,
    /// What to do with a row that cannot be read: skip (its line holds the error) or fail (with --shards its shard).
    #[arg(long, value_name = "POLICY", value_enum, default_value = "skip", requires = "out")]
    on_error: OnError,
    #[command(flatten)]
    pub(crate) table: TableArgs,
}

/// A row of such a table that names a file.
#[derive(Clone)]
pub(crate) struct BatchRow {
    pub(crate) modality: Modality,
    pub(crate) path: String,
    pub(crate) source: Source,
    pub(crate) cells: Record,
}

/// A row of such a table.
struct TableRow {
    id: String,
    cells: Record,
    /// The first file among the columns that a command reads; `None` where they are empty.
    file: Option<TableFile>,
}

/// The file of a row.
struct TableFile {
    modality: Modality,
    path: String,
    source: Source,
}

impl TableRow {
    fn to_batch_row(&self) -> Option<BatchRow> {
        let TableFile { modality, path, source } = self.file.as_ref()?;
        let (modality, path, source) = (modality.clone(), path.clone(), source.clone());
        Some(BatchRow { modality, path, source, cells: self.cells.clone() })
    }
}

impl BatchRow {
    /// A cell as text; none when it is empty.
    pub(crate) fn cell(&self, column: &str) -> Option<String> {
        self.cells.get(column).filter(|t| !t.trim().is_empty()).map(ToOwned::to_owned)
    }
}

/// What a command does with rows.
struct RowWork<'a> {
    /// The columns that it reads files of.
    kinds: &'a [&'a str],
    batch_size: usize,
    /// A JSON object for each row of a batch, or why there is none.
    process: &'a mut dyn FnMut(&[BatchRow]) -> Vec<Result<Value>>,
}

impl BatchArgs {
    /// The table or the shards, where one is given.
    pub(crate) fn input(&self) -> Option<&PathBuf> {
        self.data.as_ref().or(self.shards.as_ref())
    }

    /// Refuses options of whole tables where there is none.
    pub(crate) fn check(&self) -> Result<()> {
        if self.out.is_some() && self.input().is_none() {
            usage!("--out: is where the results of --data or --shards go; give one of them");
        }
        self.table.require_data(self.input())
    }

    /// Processes the tables in batches; `process` returns a JSON object for each row of a batch, or why there is none.
    pub(crate) fn run(
        &self,
        provenance: &Provenance,
        kinds: &[&str],
        batch_size: usize,
        context: &Context,
        mut process: impl FnMut(&[BatchRow]) -> Vec<Result<Value>>,
    ) -> Result<()> {
        let Some(out) = &self.out else { return Ok(()) };
        let mut work = RowWork { kinds, batch_size: batch_size.max(1), process: &mut process };
        match (&self.data, &self.shards) {
            (Some(data), _) => {
                refuse_url(out)?;
                self.run_table(data, out, provenance, &mut work, context)
            }
            (None, Some(shards)) => {
                let mut lines = |file: &Path, stop: &AtomicBool| self.lines_of_shard(file, &mut work, stop);
                let mut provenance = provenance.clone();
                // The rows of a whole table are part of its provenance as they were read.
                provenance.options.extend(self.table.provenance());
                LinesJob { shards, out, lines: &mut lines }.run(provenance, context)
            }
            (None, None) => Ok(()),
        }
    }

    /// The lines of the rows of a shard; `None` when it was stopped.
    fn lines_of_shard(&self, file: &Path, work: &mut RowWork<'_>, stop: &AtomicBool) -> Result<Option<ShardLines>> {
        let rows = read_rows(file, work.kinds, &self.table)?;
        let mut result = ShardLines::default();
        for batch in rows.chunks(work.batch_size) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let batch: Vec<&TableRow> = batch.iter().collect();
            result.lines.extend(self.lines(file, &batch, work, &mut result.failed)?);
        }
        Ok(Some(result))
    }

    /// Processes one table into a file. Rows whose line holds an error are tried again first.
    fn run_table(
        &self,
        data: &Path,
        out: &Path,
        provenance: &Provenance,
        work: &mut RowWork<'_>,
        context: &Context,
    ) -> Result<()> {
        if out.extension().is_none_or(|e| e != "jsonl") {
            usage!("--out {}: expected a file name that ends in .jsonl", out.display());
        }
        let (rows, batch_size) = (read_rows(data, work.kinds, &self.table)?, work.batch_size);
        let mut output = OutputLines::open(out, &provenance::with_table(provenance, &rows), &rows, batch_size)?;
        let (retried, next) = (output.failed.clone(), output.count);
        let resumed = next - retried.len();
        let stop = stop_on_interrupt("this batch")?;
        let mut progress = ItemProgress::new();
        let (mut failed, mut done) = (Vec::new(), resumed);
        let mut lines_of = |indices: &[usize], failed: &mut Vec<FailedRow>| -> Result<Vec<String>> {
            let (batch, before) = (indices.iter().map(|i| &rows[*i]).collect::<Vec<_>>(), failed.len());
            let lines = self.lines(data, &batch, work, failed)?;
            let shown = failed[before..].iter().take(MAX_EXAMPLES.saturating_sub(before));
            shown.for_each(|row| output::warning(format!("{}: {}", row.id, row.reason)));
            done += batch.len();
            progress.update("rows", done, rows.len());
            Ok(lines)
        };
        let is_stopped = || stop.load(Ordering::Relaxed);
        let mut replaced = BTreeMap::new();
        for batch in retried.chunks(batch_size).take_while(|_| !is_stopped()) {
            let lines = lines_of(batch, &mut failed);
            if lines.is_err() {
                output.replace(&replaced)?;
            }
            replaced.extend(batch.iter().copied().zip(lines?));
        }
        output.replace(&replaced)?;
        let rest: Vec<usize> = (next..rows.len()).collect();
        for batch in rest.chunks(batch_size).take_while(|_| !is_stopped()) {
            output.append(&lines_of(batch, &mut failed)?)?;
        }
        progress.finish();
        output.sync()?;
        if done < rows.len() {
            let out = out.display();
            interrupted!("{done} of {} rows are in {out}; the same command continues from there", rows.len());
        }
        let example = |row: &FailedRow| json!({"row": row.id, "path": row.path, "reason": row.reason});
        if context.json {
            let examples: Vec<Value> = failed.iter().take(MAX_EXAMPLES).map(example).collect();
            output::line(json!({
                "out": output::path(out), "rows": rows.len(), "resumed": resumed,
                "failed": {"count": failed.len(), "examples": examples},
            }));
        } else {
            let resumed = if resumed > 0 { format!(", {resumed} of them from an earlier run") } else { String::new() };
            let again = if failed.is_empty() { "" } else { "; the same command tries them again" };
            let out = out.display();
            output::line(format!("{out}: {} rows{resumed}, {} failed{again}", rows.len(), failed.len()));
        }
        Ok(())
    }

    /// The lines of a batch.
    fn lines(
        &self,
        data: &Path,
        batch: &[&TableRow],
        work: &mut RowWork<'_>,
        failed: &mut Vec<FailedRow>,
    ) -> Result<Vec<String>> {
        let with_file: Vec<BatchRow> = batch.iter().filter_map(|row| row.to_batch_row()).collect();
        let mut results = if with_file.is_empty() { Vec::new() } else { (work.process)(&with_file) }.into_iter();
        let mut lines = Vec::new();
        for row in batch {
            let no_file = || anyhow::anyhow!("the row has no {}", work.kinds.join(" or "));
            let result = match &row.file {
                Some(_) => results.next().unwrap_or_else(|| Err(anyhow::anyhow!("the model returned nothing"))),
                None => Err(no_file()),
            };
            let mut line = match result {
                Ok(line) => line,
                Err(error) if self.on_error == OnError::Fail => {
                    return Err(error.context(format!("{}: row {}", data.display(), row.id)));
                }
                Err(error) => {
                    let (reason, file) = (describe_error(error.as_ref()), row.file.as_ref());
                    let path = file.map(|f| f.path.clone());
                    failed.push(FailedRow { id: row.id.clone(), path, reason: reason.clone() });
                    json!({"input": file.map(|f| &f.path), "modality": file.map(|f| f.modality.name()), "error": reason})
                }
            };
            line["id"] = Value::from(row.id.clone());
            lines.push(line.to_string());
        }
        Ok(lines)
    }
}

/// The rows of a table, each with its first file among `kinds`.
fn read_rows(data: &Path, kinds: &[&str], table: &TableArgs) -> Result<Vec<TableRow>> {
    let mut config = table.config(data, &["question"]);
    // Rows keep their ids even where these repeat.
    config.columns.id = Some(String::new());
    let inference = ColumnInference { modalities: Some(kinds), recognize: None };
    let manifest = Manifest::open_inferring(&config, Path::new("."), &inference)?;
    let folder = data.parent().unwrap_or(Path::new(""));
    let mut rows = Vec::new();
    for mut row in manifest.rows {
        let first = |modality: Modality| Some((modality.clone(), row.values.get(&modality)?.first()?.clone()));
        let file = kinds.iter().find_map(|kind| first(Modality::from(*kind))).map(|(modality, source)| {
            let path = match &source {
                Source::Path(path) => path.strip_prefix(folder).unwrap_or(path).display().to_string(),
                other => mm_data::source_name(other),
            };
            TableFile { modality, path, source }
        });
        let id = row.cells.get("id").map_or_else(|| row.number.to_string(), ToOwned::to_owned);
        rows.push(TableRow { id, cells: std::mem::take(&mut row.cells), file });
    }
    if rows.iter().all(|row| row.file.is_none()) {
        bail!("{}: found no row with {}, expected at least one", data.display(), kinds.join(" or "));
    }
    Ok(rows)
}
