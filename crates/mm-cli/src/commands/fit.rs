//! `mm fit`: from a table to a trained predictor, without a config file.

use crate::{
    args::{
        columns::{self, TableArgs},
        output_path::local_path,
    },
    context::{Context, stop_on_interrupt},
    exit::usage,
    output,
    progress::{ItemProgress, TrainingProgress},
};
use anyhow::{Result, bail};
use mm_tasks::{
    FitContext,
    metrics::Metric,
    prediction::{FitOptions, FitResult, Preset, Problem, fit_table},
    task::failed_to_json,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Instant,
};

/// The result of a completed fit, in its folder.
const RESULT_FILE: &str = "result.json";

/// Train a predictor for a column of a table from its text, image, audio, video, numeric and categorical columns
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm fit --data train.csv --label-column price --out runs/price\n  mm fit --data train.csv --label-column mood --column text=review --column image=photo --preset fast --out runs/mood\n  mm predict --model runs/price --data new.csv"
)]
pub(crate) struct Arguments {
    /// Training table: .csv, .tsv, .jsonl, .parquet, .arrow or .tar, or a folder of Hugging Face datasets; paths in it are relative to its folder.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Column to predict.
    #[arg(long, value_name = "COLUMN")]
    label_column: String,
    #[command(flatten)]
    table: TableArgs,
    /// Column whose equal values stay in one split (a speaker, a product, a photographed object).
    #[arg(long, value_name = "COLUMN")]
    group_column: Option<String>,
    /// Folder for the models and the report; a fit that was interrupted continues in it.
    #[arg(long, value_name = "DIR", value_parser = local_path())]
    out: PathBuf,
    /// auto, binary, multiclass, multilabel, regression or ordinal.
    #[arg(long, default_value = "auto", help_heading = "Training")]
    problem: Problem,
    /// fast (one network), good (three, ensembled) or best (eight).
    #[arg(long, default_value = "good", help_heading = "Training")]
    preset: Preset,
    /// Table for model selection and calibration [default: a fifth of the rows, at most 5,000].
    #[arg(long, value_name = "FILE", help_heading = "Training")]
    validation_data: Option<PathBuf>,
    /// Fraction of the rows held out for the final metrics only.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.0, help_heading = "Training")]
    test_fraction: f64,
    /// Seconds after which training stops; what is trained by then is used.
    #[arg(long, value_name = "SECONDS", help_heading = "Training")]
    time_limit: Option<f64>,
    /// Train again on all rows, for as long as the validation rows suggested [default, except for the preset fast].
    #[arg(long, overrides_with = "no_refit", help_heading = "Training")]
    refit: bool,
    /// Do not train again on all rows.
    #[arg(long, help_heading = "Training")]
    no_refit: bool,
    /// Random seed.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Training")]
    seed: u64,
}

impl Arguments {
    fn options(&self) -> FitOptions {
        FitOptions {
            data: self.data.clone(),
            label_column: self.label_column.clone(),
            columns: columns::by_name(&self.table.column),
            encoding: self.table.cells.encoding.clone(),
            missing_values: self.table.cells.missing_values.clone(),
            fetch_urls: self.table.cells.fetch_urls,
            problem: self.problem,
            validation_data: self.validation_data.clone(),
            group_column: self.group_column.clone(),
            test_fraction: self.test_fraction,
            preset: self.preset,
            time_limit: self.time_limit,
            refit: self.refit || (!self.no_refit && self.preset != Preset::Fast),
            seed: self.seed,
            out: self.out.clone(),
        }
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let started = Instant::now();
    if std::env::var_os("RANK").is_some() && std::env::var("WORLD_SIZE").is_ok_and(|size| size != "1") {
        usage!("mm fit trains in one process: start it without a launcher, or `mm train` with one");
    }
    if arguments.out.join(RESULT_FILE).exists() {
        bail!("{}: holds a run already; choose another folder with --out", arguments.out.display());
    }
    let stop = stop_on_interrupt("this step")?;
    let mut progress = ItemProgress::new();
    let fit_context = FitContext {
        progress: &mut TrainingProgress::new(),
        on_progress: &mut |label, done, total| progress.update(label, done, total),
        stop: &stop,
    };
    let (options, device) = (arguments.options(), context.device()?);
    let fitted = fit_table(&options, &context.registry, device, &mut |text| output::note(text), fit_context);
    progress.finish();
    let fitted = fitted?;
    let report = write_report(&arguments.out, &fitted, context)?;
    let result = result(&arguments.out, &fitted, report.as_deref(), started.elapsed().as_secs_f64());
    mm_core::checkpoint::write_atomic(&arguments.out.join(RESULT_FILE), format!("{result:#}\n").as_bytes())?;
    if context.json {
        output::line(&result);
    } else {
        print(&arguments.out, &fitted, report.as_deref(), started.elapsed().as_secs_f64());
    }
    Ok(())
}

/// The report page; none where the table is too small to hold any row out.
fn write_report(out: &Path, fitted: &FitResult, context: &Context) -> Result<Option<PathBuf>> {
    let page = out.join("report.html");
    let runs = [out.to_owned()];
    match context.tasks()?.report(&runs, fitted.split, &mut |_, _, _| {}) {
        Ok(report) => {
            mm_core::checkpoint::write_atomic(&page, report.html.as_bytes())?;
            Ok(Some(page))
        }
        Err(error) => {
            output::warning(format!("no report: {error}"));
            Ok(None)
        }
    }
}

fn result(out: &Path, fitted: &FitResult, report: Option<&Path>, seconds: f64) -> Value {
    json!({
        "out": output::path(out), "problem": fitted.problem, "classes": fitted.classes, "columns": fitted.columns, "rows": fitted.train_rows,
        "failed": failed_to_json(&fitted.failed),
        "models": fitted.num_members, "stopped": fitted.stopped, "refit_rows": fitted.refit_rows, "split": fitted.split,
        "metrics": fitted.metrics, "ablations": fitted.ablations, "report": report.map(output::path), "seconds": seconds,
        "peak_memory_bytes": output::peak_memory(),
    })
}

fn print(out: &Path, fitted: &FitResult, report: Option<&Path>, seconds: f64) {
    output::warnings(fitted.failed.iter());
    let stopped = if fitted.stopped { ", stopped by the time limit or Ctrl-C" } else { "" };
    let refit = fitted.refit_rows.map_or(String::new(), |rows| format!(", refit on {rows}"));
    output::line(format!("{}: trained on {} rows{refit} in {seconds:.0} s{stopped}", out.display(), fitted.train_rows));
    if !fitted.metrics.is_empty() {
        if fitted.split == mm_data::Split::Valid {
            output::note(
                "measured on the validation rows, which chose and calibrated the model, so slightly optimistic; --test-fraction holds rows out for an unbiased estimate",
            );
        }
        let mut table = vec![vec!["metric".to_owned(), "all".to_owned()]];
        table[0].extend(fitted.ablations.keys().cloned());
        for metric in &fitted.metrics {
            let value = |m: Option<&Metric>| m.map_or(String::new(), |m| format!("{:.3}", m.value));
            let ablations = fitted.ablations.values().map(|f| value(f.find(&metric.id, metric.scope.as_deref())));
            table.push([metric.label(), value(Some(metric))].into_iter().chain(ablations).collect());
        }
        output::table(&table);
    }
    if let Some(report) = report {
        output::line(format!("report: {}", report.display()));
    }
    output::line(format!(
        "predict with: {} predict --model {} --data new.csv",
        crate::exit::program_name(),
        out.display()
    ));
}
