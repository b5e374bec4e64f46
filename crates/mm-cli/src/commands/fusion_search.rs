//! `mm fusion-search`: which fusion operator and settings suit a data set.

use crate::{
    args::{config::read_config, output_path::local_path},
    context::{Context, stop_on_interrupt},
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_tasks::prediction::{SearchOptions, parse_search_space, search};
use std::path::PathBuf;

/// Search fusion operators, widths or layers by successive halving on validation rows
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm fusion-search sentiment.toml --out runs/search\n  mm fusion-search sentiment.toml --out runs/search --space 'fusion.operator.kind=\"gated\"|\"mult\"' --space 'inputs.text.encoder.layers=[6]|[3,6]|[3,4,5,6]'"
)]
pub(crate) struct Arguments {
    /// Config of a prediction task, with validation rows (data.split.valid or data.valid).
    config: PathBuf,
    /// Folder for the trials, the best config (best.toml) and the page (report.html).
    #[arg(long, value_name = "DIR", value_parser = local_path())]
    out: PathBuf,
    /// Key of the config and the values to try; may be repeated [default: every operator, widths 32, 64 and 128].
    #[arg(long, value_name = "KEY=A|B…")]
    space: Vec<String>,
    /// Number of sampled settings.
    #[arg(long, value_name = "N", default_value_t = 24)]
    num_trials: usize,
    /// Number of rounds; each trains twice as long as the one before.
    #[arg(long, value_name = "N", default_value_t = 3)]
    num_rounds: usize,
    /// Fraction of the settings that goes on to the next round.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.34)]
    keep_fraction: f64,
    /// Random seed of the sampled settings.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Override a value of the config; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let stop = stop_on_interrupt("this trial")?;
    let mut value = read_config(&arguments.config, &arguments.overrides)?;
    let base = super::train::set_base_dir(&mut value, &arguments.config)?;
    let options = SearchOptions {
        space: arguments.space.iter().map(|s| parse_search_space(s)).collect::<Result<_, _>>()?,
        num_trials: arguments.num_trials,
        num_rounds: arguments.num_rounds,
        keep_fraction: arguments.keep_fraction,
        seed: arguments.seed,
    };
    let mut progress = ItemProgress::new();
    let on_progress = &mut |label: &str, done, total| progress.update(label, done, total);
    let found = search(&value, &base, &arguments.out, &options, &context.tasks()?, (on_progress, &stop));
    progress.finish();
    let (trials, report) = found?;
    let page = arguments.out.join("report.html");
    mm_core::checkpoint::write_atomic(&page, report.html.as_bytes())?;
    if context.json {
        trials.iter().map(serde_json::to_string).try_for_each(|t| t.map(output::line))?;
        return Ok(());
    }
    let mut table = vec![["settings", "epochs", "score"].map(ToOwned::to_owned).to_vec()];
    for trial in trials.iter().take(12) {
        let name = trial.settings.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
        let (epochs, score) =
            trial.scores.last().map_or((String::new(), "failed".into()), |(e, s)| (e.to_string(), format!("{s:.4}")));
        table.push(vec![name, epochs, score]);
    }
    output::table(&table);
    output::line(format!("report: {}", page.display()));
    let (program, best) = (crate::exit::program_name(), arguments.out.join("best.toml"));
    output::line(format!("train the best with: {program} train {} --out RUN", best.display()));
    Ok(())
}
