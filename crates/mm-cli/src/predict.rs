//! `mm predict`: what a trained prediction says of new rows.

use crate::{Context, output};
use anyhow::{Result, bail};
use mm_tasks::prediction::{Predictor, write_predictions};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The folder of `mm fit`, or of `mm train` of a prediction.
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// The rows to predict; columns as in training, any of them may lack.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where predictions go: .parquet, .csv or .jsonl.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// A modality to leave out; several by commas, or repeated.
    #[arg(long, value_name = "MODALITY,…", value_delimiter = ',')]
    drop: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let predictor = Predictor::open(&arguments.run, &crate::registry(), context.device()?)?;
    let drop = predictor.without(&arguments.drop)?;
    let manifest = predictor.data(&arguments.data)?;
    let rows: Vec<usize> = (0..manifest.rows.len()).collect();
    let (mut all, mut broken) = (Vec::new(), 0);
    // Printed piece by piece: memory does not grow with what is read, and a person sees that it goes on.
    let pieces: Vec<&[usize]> = if predictor.by_items() { vec![&rows] } else { rows.chunks(4096).collect() };
    for piece in pieces {
        let (answers, bad) = predictor.predict(&manifest, piece, &drop)?;
        for value in bad.iter().take(20_usize.saturating_sub(broken)) {
            eprintln!("left out {value}");
        }
        broken += bad.len();
        for answer in &answers {
            if context.json {
                output::line(answer.json());
            } else if arguments.out.is_none() {
                let sure = answer.probabilities.iter().map(|p| p.1).fold(0.0, f64::max);
                let sure = if answer.probabilities.is_empty() { String::new() } else { format!("  {sure:.3}") };
                let said = answer.prediction.as_str().map_or_else(|| answer.prediction.to_string(), ToOwned::to_owned);
                output::line(format!("{}  {said}{sure}", answer.id));
            }
        }
        if arguments.out.is_some() {
            all.extend(answers);
        }
    }
    if broken > 0 {
        eprintln!("{broken} values could not be read; their rows were predicted from the rest");
    }
    if let Some(out) = &arguments.out {
        if all.is_empty() {
            bail!("{}: no row to predict", arguments.data.display());
        }
        write_predictions(out, &all)?;
        if !context.json {
            output::line(format!("{}: {} predictions", out.display(), all.len()));
        }
    }
    Ok(())
}
