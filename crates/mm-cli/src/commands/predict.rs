//! `mm predict`: predictions for new rows.

use crate::{
    args::{columns::CellArgs, model::ModelArgs},
    context::Context,
    exit::usage,
    output,
};
use anyhow::{Result, bail};
use mm_tasks::prediction::{Predictor, write_predictions};
use std::path::PathBuf;

/// Predict the label column for new rows
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm predict --model runs/price --data new.csv --json\n  mm predict --model runs/price --data new.csv --out predictions.parquet\n\nJSON, one line a row: {\"row\": its number in the file, from 1, \"prediction\": …, \"probabilities\": {…}, \"present\": [modalities]}"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Rows to predict; columns as in training, any value may be missing.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    cells: CellArgs,
    /// File for the predictions: .parquet, .csv or .jsonl.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Modality to ignore; may be repeated.
    #[arg(long, value_name = "NAME")]
    exclude_modality: Vec<String>,
}

/// Rows that are predicted and printed at a time, which bounds the memory.
const CHUNK: usize = 4096;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let predictor = Predictor::open(&arguments.model.dir()?, &context.registry, context.device()?)?;
    let excluded = predictor.find_modalities(&arguments.exclude_modality)?;
    let manifest = predictor.open_table(&arguments.data, &excluded, &arguments.cells.options())?;
    let rows: Vec<usize> = (0..manifest.rows.len()).collect();
    if rows.is_empty() {
        bail!("{}: no row to predict", arguments.data.display());
    }
    if let Some(out) = &arguments.out
        && !out.extension().is_some_and(|e| e == "parquet" || e == "csv" || e == "jsonl")
    {
        usage!("--out {}: expected a file name that ends in .parquet, .csv or .jsonl", out.display());
    }
    let (mut predictions, mut failed) = (Vec::new(), 0);
    // Rows of one sequence are predicted together.
    let chunks: Vec<&[usize]> = if predictor.groups_items() { vec![&rows] } else { rows.chunks(CHUNK).collect() };
    for chunk in chunks {
        let (chunk_predictions, chunk_failed) = predictor.predict(&manifest, chunk, &excluded)?;
        chunk_failed.iter().take(20_usize.saturating_sub(failed)).for_each(output::warning);
        failed += chunk_failed.len();
        for prediction in &chunk_predictions {
            if context.json {
                output::line(prediction.to_json());
            } else if arguments.out.is_none() {
                let confidence = prediction.probabilities.iter().map(|p| p.1).reduce(f64::max);
                let confidence = confidence.map_or(String::new(), |p| format!("  {p:.3}"));
                let value = &prediction.prediction;
                let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                output::line(format!("{}  {text}{confidence}", prediction.id));
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
