//! `mm fuse-search`: which way to fuse suits a data set.

use crate::{Context, output, progress::Steps};
use anyhow::Result;
use mm_core::config;
use mm_tasks::prediction::{Search, search, search_space};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The config of a prediction, with validation rows (data.split.valid or data.valid).
    config: PathBuf,
    /// The folder for the trials, the best config (best.toml) and the page (report.html).
    #[arg(long, value_name = "FOLDER")]
    run: PathBuf,
    /// A key of the config and what it may be; may be repeated [default: every operator, widths 32, 64 and 128].
    #[arg(long, value_name = "KEY=A|B…")]
    space: Vec<String>,
    /// Settings that are drawn.
    #[arg(long, default_value_t = 24)]
    trials: usize,
    /// Rounds; each trains twice as long as the one before.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Share of the settings that goes on to the next round.
    #[arg(long, default_value_t = 0.34)]
    keep: f64,
    /// Which settings are drawn is a function of it.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Set a value of the config; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let stop = crate::interrupt("this trial")?;
    let mut value = config::read(&arguments.config, &arguments.overrides)?;
    let base = std::fs::canonicalize(
        arguments.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
    )?;
    config::set(&mut value, &format!("base={}", toml::Value::String(base.display().to_string())))?;
    let wanted = Search {
        space: arguments.space.iter().map(|s| search_space(s)).collect::<Result<_, _>>()?,
        trials: arguments.trials,
        rounds: arguments.rounds,
        keep: arguments.keep,
        seed: arguments.seed,
    };
    let mut steps = Steps::new();
    let told = &mut |what: &str, done, of| steps.tell(what, done, of);
    let found = search(&value, &base, &arguments.run, &wanted, &crate::registry(), context.device()?, told, &stop);
    steps.end();
    let (trials, report) = found?;
    let page = arguments.run.join("report.html");
    mm_core::checkpoint::write_file(&page, report.html.as_bytes())?;
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
    output::line(format!("{}: open it in a browser", page.display()));
    output::line(format!("train the best with: mm train {} --run RUN", arguments.run.join("best.toml").display()));
    Ok(())
}
