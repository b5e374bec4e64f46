//! Many files by many workers: where a worker begins, and what it says at the end.

use crate::{
    context::{Context, stop_on_interrupt},
    exit::interrupted,
    output,
    progress::ItemProgress,
};
use anyhow::{Result, bail};
use mm_core::describe_error;
use mm_tasks::{
    provenance::Provenance,
    shards::{Shard, ShardFolder, ShardOutcome, ShardWork, WorkerSummary, name_shards, run_worker},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// Where this worker begins: an equal distance from the others, where a scheduler numbers them.
pub(crate) fn first_shard(count: usize) -> usize {
    first_by(count, &|name| std::env::var(name).ok())
}

/// The same, by variables of the environment.
fn first_by(count: usize, variable: &dyn Fn(&str) -> Option<String>) -> usize {
    let number = |name: &str| variable(name).and_then(|text| text.trim().parse::<usize>().ok());
    let of_array = || {
        let (id, first) = (number("SLURM_ARRAY_TASK_ID")?, number("SLURM_ARRAY_TASK_MIN").unwrap_or(0));
        Some((id.saturating_sub(first), number("SLURM_ARRAY_TASK_COUNT")?))
    };
    let of_launcher = || Some((number("RANK")?, number("WORLD_SIZE")?));
    let of_srun = || Some((number("SLURM_PROCID")?, number("SLURM_STEP_NUM_TASKS")?));
    let Some((index, workers)) = of_array().or_else(of_launcher).or_else(of_srun) else {
        return number("JOB_COMPLETION_INDEX").unwrap_or(0) % count.max(1);
    };
    count * index.min(workers) / workers.max(1) % count.max(1)
}

/// Names the shards that failed, and ends a command that was interrupted.
pub(crate) fn warn_failed(worker: &WorkerSummary) -> Result<()> {
    let named = |(file, reason): &(PathBuf, String)| {
        let file = file.display().to_string();
        if reason.starts_with(&file) { reason.clone() } else { format!("{file}: {reason}") }
    };
    let failed = worker.failed.iter().map(named);
    output::warnings(failed.collect::<Vec<_>>().iter());
    if worker.stopped {
        interrupted!("the shards that are done are saved; the same command continues with the others");
    }
    Ok(())
}

/// What every command over shards says of its worker, as JSON.
pub(crate) fn worker_json(out: &Path, worker: &WorkerSummary) -> Map<String, Value> {
    let examples = worker.failed.iter().take(20).map(|(file, reason)| json!({"file": file, "reason": reason}));
    let failed = json!({"count": worker.failed.len(), "examples": examples.collect::<Vec<_>>()});
    let entries = [
        ("out", json!(output::path(out))),
        ("shards", json!(worker.shards)),
        ("processed", json!(worker.processed)),
        ("failed", failed),
    ];
    entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Ends with an error when shards failed.
pub(crate) fn refuse_failed(worker: &WorkerSummary) -> Result<()> {
    let failed = worker.failed.len();
    if failed > 0 {
        bail!("{failed} of {} shards could not be processed; the same command tries them again", worker.shards);
    }
    Ok(())
}

/// A row of a shard that failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FailedRow {
    /// Its id.
    pub(crate) id: String,
    /// Its file; none where the row names none.
    pub(crate) path: Option<String>,
    /// Why.
    pub(crate) reason: String,
}

/// The lines of a shard: one of JSON for each row.
#[derive(Default)]
pub(crate) struct ShardLines {
    pub(crate) lines: Vec<String>,
    pub(crate) failed: Vec<FailedRow>,
}

/// What is recorded of a shard of lines.
#[derive(Serialize, Deserialize)]
pub(crate) struct LinesRecord {
    /// Number of lines.
    rows: usize,
    /// The rows whose value could not be processed.
    failed_rows: Vec<FailedRow>,
}

/// Lines for each shard, `OUT/NAME.jsonl`.
pub(crate) struct LinesJob<'a> {
    /// The files.
    pub(crate) shards: &'a Path,
    /// The folder, or the URL of one in an object store.
    pub(crate) out: &'a Path,
    /// The lines of a file; `None` when it was stopped. An error is one of the shard.
    pub(crate) lines: &'a mut dyn FnMut(&Path, &AtomicBool) -> Result<Option<ShardLines>>,
}

impl LinesJob<'_> {
    /// Processes shards until all are done, and says what was done.
    pub(crate) fn run(mut self, mut provenance: Provenance, context: &Context) -> Result<()> {
        let (files, folder) = (mm_data::existing_files(self.shards)?, ShardFolder::open(self.out)?);
        let shards = name_shards(&files)?;
        provenance.command.push_str(" --shards");
        folder.prepare(&provenance)?;
        let stop = stop_on_interrupt("this batch")?;
        let mut progress = ItemProgress::new();
        let on_progress = &mut |done, total| progress.update("shards", done, total);
        let worker = run_worker(&folder, &shards, first_shard(files.len()), &mut self, &stop, on_progress)?;
        progress.finish();
        warn_failed(&worker)?;
        let records = folder.records::<LinesRecord>(&shards)?;
        let rows: usize = records.iter().map(|(_, record)| record.result.rows).sum();
        let failed_rows: usize = records.iter().map(|(_, record)| record.result.failed_rows.len()).sum();
        if context.json {
            let mut line = worker_json(self.out, &worker);
            line.extend([("rows".to_owned(), json!(rows)), ("failed_rows".to_owned(), json!(failed_rows))]);
            output::line(Value::Object(line));
        } else {
            let (out, shards, processed) = (self.out.display(), worker.shards, worker.processed);
            output::line(format!("{out}: {rows} rows in {shards} shards, {processed} of them by this worker"));
            if failed_rows > 0 {
                output::line(format!("{failed_rows} rows failed; shards/*.json lists them"));
            }
        }
        refuse_failed(&worker)
    }
}

impl ShardWork for LinesJob<'_> {
    type Record = LinesRecord;
    type Error = anyhow::Error;

    fn process(&mut self, shard: &Shard<'_>) -> Result<ShardOutcome<LinesRecord>> {
        let ShardLines { lines, failed } = match (self.lines)(shard.file, shard.stop) {
            Ok(Some(lines)) => lines,
            Ok(None) => return Ok(ShardOutcome::Stopped),
            Err(error) => return Ok(ShardOutcome::Failed(describe_error(error.as_ref()))),
        };
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        shard.lease.write(&format!("{}.jsonl", shard.name), text.as_bytes())?;
        Ok(ShardOutcome::Done(LinesRecord { rows: lines.len(), failed_rows: failed }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_begin_at_equal_distances() {
        let first = |count: usize, variables: &[(&str, &str)]| {
            first_by(count, &|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(first(100, &[]), 0);
        let array = |id| [("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "4")];
        assert_eq!(["1", "2", "4"].map(|id| first(100, &array(id))), [0, 25, 75]);
        assert_eq!(["0", "1", "2"].map(|rank| first(8, &[("RANK", rank), ("WORLD_SIZE", "3")])), [0, 2, 5]);
        assert_eq!(first(10, &[("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "2")]), 5);
        // Kubernetes does not say how many there are.
        assert_eq!(["3", "13"].map(|index| first(10, &[("JOB_COMPLETION_INDEX", index)])), [3, 3]);
        assert_eq!(first(0, &[("RANK", "1"), ("WORLD_SIZE", "2")]), 0);
    }
}
