//! `mm eval`: metrics of a trained run on held-out rows.

use crate::{
    args::{
        columns::CellArgs,
        model::{ModelArgs, is_copy, locate},
    },
    context::Context,
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::{Result, bail};
use mm_data::Split;
use mm_repr::{LoadOptions, Pretrained};
use mm_tasks::{
    captioning::{self, Captioning},
    metrics::{CaptionScorers, Synonyms},
    prediction::{self, Predictor, robustness, robustness_report},
    task::EvaluationReport,
};
use std::path::{Path, PathBuf};

/// Evaluate a trained run on held-out rows
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm eval --model runs/first --split test --json\n  mm eval --model runs/price --data test.csv --json\n  mm eval --model runs/price --data test.csv --exclude-modality image\n  mm eval --model runs/price --data test.csv --robustness robustness.html"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Split to evaluate: train, valid or test.
    #[arg(long, default_value = "test")]
    split: Split,
    /// Evaluate the rows of another table, with columns as in training (prediction runs).
    #[arg(long, value_name = "FILE", conflicts_with = "split")]
    data: Option<PathBuf>,
    #[command(flatten)]
    cells: CellArgs,
    /// Modality to ignore, which shows its contribution; may be repeated (prediction runs).
    #[arg(long, value_name = "NAME")]
    exclude_modality: Vec<String>,
    /// Also evaluate with each modality missing or noisy at ten strengths, and write the curves to this page
    /// (prediction runs).
    #[arg(long, value_name = "FILE.html")]
    robustness: Option<PathBuf>,
    /// Image–text model for CLIPScore (captioning runs).
    #[arg(long, value_name = "MODEL")]
    clip: Option<PathBuf>,
    /// Folder with WordNet's files, for METEOR with synonyms (captioning runs; `mm data fetch english-dictionary`
    /// fetches one).
    #[arg(long, value_name = "DIR")]
    wordnet: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    arguments.cells.require_data(arguments.data.as_ref())?;
    let dir = arguments.model.dir()?;
    let as_prediction =
        arguments.data.is_some() || !arguments.exclude_modality.is_empty() || arguments.robustness.is_some();
    let evaluation = if as_prediction {
        evaluate_prediction(&dir, arguments, context)?
    } else {
        evaluate(&dir, arguments, context)?
    };
    if context.json {
        output::line(&evaluation.json);
    } else {
        output::table(&evaluation.table);
    }
    Ok(())
}

/// A prediction run, on any rows, with or without a modality.
fn evaluate_prediction(dir: &Path, arguments: &Arguments, context: &Context) -> Result<EvaluationReport> {
    if arguments.clip.is_some() || arguments.wordnet.is_some() {
        usage!("--clip, --wordnet: are for captioning runs; {} is evaluated as a prediction run", dir.display());
    }
    // Rows of another table were not seen in training, whatever split they are in there.
    let split = if arguments.data.is_some() { Split::Test } else { arguments.split };
    context.tasks()?.tasks.check_run(dir, prediction::TASK)?;
    let predictor = Predictor::open_for_split(dir, split, &context.registry, context.device()?)?;
    let excluded = predictor.find_modalities(&arguments.exclude_modality)?;
    let (manifest, rows) = if let Some(data) = &arguments.data {
        let manifest = predictor.open_table(data, &excluded, &arguments.cells.options())?;
        let rows = (0..manifest.rows.len()).collect::<Vec<_>>();
        (manifest, rows)
    } else {
        let manifest = predictor.dataset()?;
        let rows = manifest.rows_in_split(split);
        (manifest, rows)
    };
    if rows.is_empty() {
        bail!("{}: no {split} rows; choose another --split, or other rows with --data", dir.display());
    }
    if let Some(page) = &arguments.robustness {
        let curves = robustness(&predictor, &manifest, &rows, 0)?;
        mm_core::checkpoint::write_atomic(page, robustness_report(&curves)?.html.as_bytes())?;
        let mut table = vec![["modality", "corruption", "clean", "strongest", "area"].map(ToOwned::to_owned).to_vec()];
        table.extend(curves.iter().map(|c| {
            let at = |p: Option<&(f64, f64)>| p.map_or(String::new(), |p| format!("{:.4}", p.1));
            let (first, last) = (at(c.points.first()), at(c.points.last()));
            vec![c.modality.clone(), c.corruption.name().to_owned(), first, last, format!("{:.4}", c.area)]
        }));
        return Ok(EvaluationReport {
            json: serde_json::json!({"curves": curves, "report": output::path(page)}),
            table,
        });
    }
    let mut evaluation = predictor.evaluate(&manifest, &rows, &excluded)?;
    output::warnings(evaluation.failed.iter());
    if arguments.data.is_none() && excluded.is_empty() {
        predictor.add_baselines(&mut evaluation.metrics, &manifest, &rows)?;
    }
    Ok(evaluation.report(arguments.data.is_none().then_some(split)))
}

/// A run of any task on a split of its own data; the result is also written into the run folder.
fn evaluate(dir: &Path, arguments: &Arguments, context: &Context) -> Result<EvaluationReport> {
    let tasks = context.tasks()?;
    let mut progress = ItemProgress::new();
    let on_progress = &mut |label: &str, done, total| progress.update(label, done, total);
    let evaluation = if arguments.clip.is_some() || arguments.wordnet.is_some() {
        tasks.tasks.check_run(dir, captioning::TASK)?;
        let options = LoadOptions { device: context.device()?, ..LoadOptions::default() };
        let load = |name: &PathBuf| -> Result<Pretrained> { Ok(Pretrained::load_with(&locate(name)?, options)?) };
        let clip = arguments.clip.as_ref().map(load).transpose()?;
        let synonyms = arguments.wordnet.as_deref().map(Synonyms::open).transpose()?;
        let scorers = CaptionScorers { clip: clip.as_ref(), synonyms: synonyms.as_ref() };
        Captioning::load(dir, &tasks)?.evaluate_split(arguments.split, scorers, on_progress)?.report()
    } else {
        tasks.load(dir)?.evaluate(arguments.split, &tasks, on_progress)?
    };
    progress.finish();
    if is_copy(arguments.model.path()) {
        output::note("the evaluation is not saved: the run is at a URL");
        return Ok(evaluation);
    }
    let file = dir.join(format!("evaluation-{}.json", arguments.split));
    // Somebody else's run may be in a folder that is read-only.
    if let Err(error) = mm_core::checkpoint::write_atomic(&file, evaluation.json.to_string().as_bytes()) {
        output::warning(format!("the evaluation was not saved: {error}"));
    }
    Ok(evaluation)
}
