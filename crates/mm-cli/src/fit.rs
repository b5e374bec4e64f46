//! `mm fit`: from a table to a model.

use crate::{
    Context, output,
    progress::{Steps, Training},
};
use anyhow::{Result, bail};
use mm_tasks::prediction::{Fitting, Preset, Problem, fit_table};
use serde_json::json;
use std::{collections::BTreeMap, path::PathBuf, time::Instant};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The table to learn from: .csv, .tsv, .jsonl or .parquet; paths in it are relative to its folder.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The column to predict.
    #[arg(long, value_name = "COLUMN")]
    label: String,
    /// Which column is which modality, for instance text=review,image=photo; several columns of one by `+`. All is guessed when absent.
    #[arg(long, value_name = "MODALITY=COLUMN,…", value_delimiter = ',')]
    columns: Vec<String>,
    /// auto, binary, multiclass, multilabel, regression or ordinal.
    #[arg(long, default_value = "auto")]
    problem: Problem,
    /// A table to choose and calibrate on [default: a fifth of the rows, at most 5,000].
    #[arg(long, value_name = "FILE")]
    tune_on: Option<PathBuf>,
    /// A column whose equal values stay together when rows are held out (a speaker, a product, a drawing).
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Share of the rows that nothing but the final figures sees.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0)]
    hold_out: f64,
    /// fast (one network), good (three, pooled) or best (eight).
    #[arg(long, default_value = "good")]
    preset: Preset,
    /// Seconds after which training stops; what there is then counts.
    #[arg(long, value_name = "S")]
    time_limit: Option<f64>,
    /// Whether the networks learn anew from all rows once those held out have told how long to learn [default: no for fast, else yes].
    #[arg(long, value_name = "yes|no", value_parser = ["yes", "no"])]
    refit: Option<String>,
    /// Everything random is a function of it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The folder for the model and its report.
    #[arg(long, value_name = "RUN")]
    out: PathBuf,
}

fn columns(arguments: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in arguments {
        let Some((modality, names)) = binding.split_once('=').filter(|(m, n)| !m.is_empty() && !n.is_empty()) else {
            bail!("--columns {binding}: wanted MODALITY=COLUMN, for instance image=photo");
        };
        out.entry(modality.trim().to_owned()).or_default().extend(names.split('+').map(|n| n.trim().to_owned()));
    }
    Ok(out)
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let begun = Instant::now();
    let stop = crate::interrupt("this step")?;
    let fitting = Fitting {
        data: arguments.data.clone(),
        label: arguments.label.clone(),
        columns: columns(&arguments.columns)?,
        problem: arguments.problem,
        tune_on: arguments.tune_on.clone(),
        group: arguments.group.clone(),
        hold_out: arguments.hold_out,
        preset: arguments.preset,
        time_limit: arguments.time_limit,
        refit: arguments.refit.as_ref().map_or(arguments.preset != Preset::Fast, |r| r == "yes"),
        seed: arguments.seed,
        out: arguments.out.clone(),
    };
    let registry = crate::registry();
    let mut steps = Steps::new();
    let mut say = |text: String| eprintln!("{text}");
    let fitted = fit_table(
        &fitting,
        &registry,
        context.device()?,
        &mut Training::new(),
        &mut say,
        &mut |what, done, of| steps.tell(what, done, of),
        &stop,
    );
    steps.end();
    let fitted = fitted?;
    let page = arguments.out.join("report.html");
    let report = mm_tasks::job::build_report(
        std::slice::from_ref(&arguments.out),
        fitted.side,
        &registry,
        context.device()?,
        &mut |_, _, _| {},
    );
    let page = match report {
        Ok(report) => {
            mm_core::checkpoint::write_file(&page, report.html.as_bytes())?;
            Some(page)
        }
        // A table too small to hold anything out has a model all the same.
        Err(error) => {
            eprintln!("no report: {error}");
            None
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let result = json!({
        "run": arguments.out, "problem": fitted.problem, "classes": fitted.classes, "columns": fitted.columns, "rows": fitted.rows,
        "skipped": fitted.broken.len(), "broken": fitted.broken.iter().take(100).collect::<Vec<_>>(), "networks": fitted.members,
        "stopped": fitted.stopped, "refitted_on": fitted.refitted, "measured_on": fitted.side, "held_out": fitted.figures, "ablations": fitted.ablations, "report": page, "seconds": seconds,
        "peak_memory_bytes": output::peak_memory(),
    });
    mm_core::checkpoint::write_file(&arguments.out.join("result.json"), format!("{result:#}\n").as_bytes())?;
    if context.json {
        output::line(&result);
        return Ok(());
    }
    for broken in fitted.broken.iter().take(5) {
        eprintln!("skipped {broken}");
    }
    let skipped = if fitted.broken.is_empty() {
        String::new()
    } else {
        format!(", {} broken values skipped", fitted.broken.len())
    };
    let early = if fitted.stopped { ", stopped early" } else { "" };
    let anew = fitted.refitted.map_or(String::new(), |rows| format!(", anew from {rows}"));
    output::line(format!(
        "{}: learned from {} rows{anew} in {seconds:.0} s{skipped}{early}",
        arguments.out.display(),
        fitted.rows
    ));
    if !fitted.figures.is_empty() {
        if fitted.side == mm_data::Split::Valid {
            output::line(
                "on the rows that it was chosen and calibrated on, so a little bright; --hold-out keeps others for this alone:",
            );
        }
        let mut table = vec![vec!["held out".to_owned(), "all".to_owned()]];
        table[0].extend(fitted.ablations.keys().cloned());
        for (name, value) in fitted.figures.iter().filter(|(n, _)| !n.starts_with("rows")) {
            let others = fitted.ablations.values().map(|f| f.get(name).map_or(String::new(), |v| format!("{v:.3}")));
            table.push([name.clone(), format!("{value:.3}")].into_iter().chain(others).collect());
        }
        output::table(&table);
    }
    if let Some(page) = page {
        output::line(format!("{}: open it in a browser", page.display()));
    }
    output::line(format!("predict with: mm predict --run {} --data new.csv", arguments.out.display()));
    Ok(())
}
