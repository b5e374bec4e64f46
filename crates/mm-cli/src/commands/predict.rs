//! `mm predict`: predictions for new rows.

use crate::{
    args::{
        batch::command_provenance,
        columns::CellArgs,
        model::ModelArgs,
        output_path::refuse_url,
        shards::{FailedRow, LinesJob, ShardLines},
    },
    context::Context,
    exit::usage,
    output,
};
use anyhow::{Result, bail};
use mm_core::Modality;
use mm_data::Manifest;
use mm_tasks::prediction::{Predictor, RowPrediction, write_predictions};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// Predict the label column for new rows
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm predict --model runs/price --data new.csv --json\n  mm predict --model runs/price --data new.csv --out predictions.parquet\n  mm predict --model runs/price --shards 'new-{000..099}.parquet' --out predictions     (in as many workers as you like)\n\nJSON, one line a row: {\"row\": its number in the file, from 1, \"prediction\": …, \"probabilities\": {…}, \"present\": [modalities]}"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Rows to predict; columns as in training, any value may be missing.
    #[arg(long, value_name = "FILE", required_unless_present = "shards")]
    data: Option<PathBuf>,
    /// Predict the rows of each of several tables or WebDataset shards into the folder --out, one JSON line a row, for
    /// instance 'new-{000..099}.parquet'. Any number of workers on any hosts run the same command: each takes shards
    /// that are neither done nor taken by another, and ends when all are done.
    #[arg(long, value_name = "PATTERN", requires = "out", conflicts_with = "data")]
    shards: Option<PathBuf>,
    #[command(flatten)]
    cells: CellArgs,
    /// File for the predictions: .parquet, .csv or .jsonl; with --shards a folder (or s3://, gs://, az://).
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Modality to ignore; may be repeated.
    #[arg(long, value_name = "NAME")]
    exclude_modality: Vec<String>,
}

/// Rows that are predicted and printed at a time, which bounds the memory.
const CHUNK: usize = 4096;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let dir = arguments.model.dir()?;
    let predictor = Predictor::open(&dir, &context.registry, context.device()?)?;
    let excluded = predictor.find_modalities(&arguments.exclude_modality)?;
    match (&arguments.data, &arguments.shards, &arguments.out) {
        (Some(data), _, out) => {
            out.as_deref().map_or(Ok(()), refuse_url)?;
            predict_table(&predictor, data, &excluded, arguments, context)
        }
        (None, Some(shards), Some(out)) => {
            let mut options = arguments.cells.provenance();
            options.insert("exclude_modality".to_owned(), json!(arguments.exclude_modality));
            let mut lines =
                |file: &Path, stop: &AtomicBool| lines_of_shard(&predictor, file, &excluded, arguments, stop);
            LinesJob { shards, out, lines: &mut lines }.run(command_provenance("predict", &dir, options)?, context)
        }
        (None, ..) => usage!("nothing to predict; give --data, or --shards and --out"),
    }
}

/// The rows of a table in parts that are predicted at a time; those of one sequence are predicted together.
fn chunks<'a>(predictor: &Predictor, rows: &'a [usize]) -> Vec<&'a [usize]> {
    if predictor.groups_items() { vec![rows] } else { rows.chunks(CHUNK).collect() }
}

fn open_rows(
    predictor: &Predictor,
    data: &Path,
    excluded: &[Modality],
    arguments: &Arguments,
) -> Result<(Manifest, Vec<usize>)> {
    let manifest = predictor.open_table(data, excluded, &arguments.cells.options())?;
    let rows: Vec<usize> = (0..manifest.rows.len()).collect();
    if rows.is_empty() {
        bail!("{}: no row to predict", data.display());
    }
    Ok((manifest, rows))
}

/// The lines of the rows of a shard; `None` when it was stopped.
fn lines_of_shard(
    predictor: &Predictor,
    file: &Path,
    excluded: &[Modality],
    arguments: &Arguments,
    stop: &AtomicBool,
) -> Result<Option<ShardLines>> {
    let (manifest, rows) = open_rows(predictor, file, excluded, arguments)?;
    let mut result = ShardLines::default();
    for chunk in chunks(predictor, &rows) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let (predictions, failed) = predictor.predict(&manifest, chunk, excluded)?;
        result.lines.extend(predictions.iter().map(|prediction| prediction.to_json().to_string()));
        result.failed.extend(failed.into_iter().map(|sample| FailedRow {
            id: sample.id,
            path: None,
            reason: sample.reason,
        }));
    }
    Ok(Some(result))
}

fn predict_table(
    predictor: &Predictor,
    data: &Path,
    excluded: &[Modality],
    arguments: &Arguments,
    context: &Context,
) -> Result<()> {
    if let Some(out) = &arguments.out
        && !out.extension().is_some_and(|e| e == "parquet" || e == "csv" || e == "jsonl")
    {
        usage!("--out {}: expected a file name that ends in .parquet, .csv or .jsonl", out.display());
    }
    let (manifest, rows) = open_rows(predictor, data, excluded, arguments)?;
    let (mut predictions, mut failed) = (Vec::new(), 0);
    for chunk in chunks(predictor, &rows) {
        let (chunk_predictions, chunk_failed) = predictor.predict(&manifest, chunk, excluded)?;
        chunk_failed.iter().take(20_usize.saturating_sub(failed)).for_each(output::warning);
        failed += chunk_failed.len();
        for prediction in &chunk_predictions {
            if context.json {
                output::line(prediction.to_json());
            } else if arguments.out.is_none() {
                print_prediction(prediction);
            }
        }
        if arguments.out.is_some() {
            predictions.extend(chunk_predictions);
        }
    }
    if failed > 0 {
        output::warning(format!("{failed} values could not be read; their rows were predicted from the other values"));
    }
    if let Some(out) = &arguments.out {
        write_predictions(out, &predictions)?;
        if !context.json {
            output::line(format!("{}: {} predictions", out.display(), predictions.len()));
        }
    }
    Ok(())
}

fn print_prediction(prediction: &RowPrediction) {
    let confidence = prediction.probabilities.iter().map(|p| p.1).reduce(f64::max);
    let confidence = confidence.map_or(String::new(), |p| format!("  {p:.3}"));
    let value = &prediction.prediction;
    let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    output::line(format!("{}  {text}{confidence}", prediction.id));
}
