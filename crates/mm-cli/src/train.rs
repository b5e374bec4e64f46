//! `mm train`: learns as a config file says.

use crate::{
    Context, output,
    progress::{Steps, Training},
};
use anyhow::{Context as _, Result, bail};
use mm_core::{Role, config};
use mm_tasks::job::{self, Job};
use mm_train::{Run, environment};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The config: .toml or .json.
    config: PathBuf,
    /// The run folder [default: runs/ and the config's name].
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// Go on from the run's last checkpoint (start, if there is none yet).
    #[arg(long)]
    resume: bool,
    /// Set a value of the config; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Train this many runs, with seeds counted up from the config's, into seed-0, seed-1 … of the run folder.
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let stop = crate::interrupt("this step")?;
    let value = config::read(&arguments.config, &arguments.overrides)?;
    // Fails early, before folders are made, when the config is wrong.
    job::check(&value).with_context(|| arguments.config.display().to_string())?;
    let name = arguments.config.file_stem().map(PathBuf::from).unwrap_or_default();
    let folder = arguments.run.clone().unwrap_or_else(|| Path::new("runs").join(name));
    let Some(seeds) = arguments.seeds else { return one(value, &folder, arguments, context, &stop) };
    let first = value.get("train").and_then(|t| t.get("seed")).and_then(toml::Value::as_integer).unwrap_or(0);
    for seed in 0..seeds as i64 {
        let mut own = value.clone();
        config::set(&mut own, &format!("train.seed={}", first + seed))?;
        one(own, &folder.join(format!("seed-{}", first + seed)), arguments, context, &stop)?;
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}

fn one(
    mut value: toml::Value,
    folder: &Path,
    arguments: &Arguments,
    context: &Context,
    stop: &AtomicBool,
) -> Result<()> {
    let begun = Instant::now();
    let resumed = arguments.resume && folder.join("config.toml").exists();
    let base = match value.get("base").and_then(toml::Value::as_str) {
        Some(base) => PathBuf::from(base),
        None => std::fs::canonicalize(
            arguments.config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")),
        )?,
    };
    config::set(&mut value, &format!("base={}", toml::Value::String(base.display().to_string())))?;
    job::resolve(&mut value, &base, &crate::registry(), &mut |text| eprintln!("{text}"))?;
    if resumed {
        let before = config::read(&folder.join("config.toml"), &[])?;
        if before != value {
            bail!(
                "{}: its config differs from {}; a run is resumed as it was begun (or start another with --run)",
                folder.display(),
                arguments.config.display()
            );
        }
    }
    let model = Job::new(&value, &base, &crate::registry(), context.device()?)?;
    // Before a folder is made: a manifest that cannot be read must leave nothing behind.
    let manifest = model.manifest()?;
    let mut run = if resumed {
        Run::resume(folder)?
    } else {
        Run::create(folder, &value, environment(json!({"device": context.device()?.to_string()})))?
    };
    let (trainable, frozen) = (model.params().count(&[Role::Trainable]), model.params().count(&[Role::Frozen]));
    tracing::info!("{trainable} parameters to learn, {frozen} frozen");
    let mut steps = Steps::new();
    let result =
        model.fit(manifest, &mut run, &mut Training::new(), &mut |what, done, of| steps.tell(what, done, of), stop);
    steps.end();
    let fit = result?;
    let seconds = begun.elapsed().as_secs_f64();
    let result = json!({
        "run": folder, "steps": fit.outcome.state.step, "epochs": fit.outcome.state.epoch, "finished": fit.outcome.state.finished, "rows": fit.rows,
        "skipped": fit.broken.len(), "broken": fit.broken, "best": fit.outcome.state.best, "seconds": seconds, "peak_memory_bytes": output::peak_memory(),
        "parameters": {"trainable": trainable, "frozen": frozen},
    });
    mm_core::checkpoint::write_file(&folder.join("result.json"), format!("{result:#}\n").as_bytes())?;
    if context.json {
        output::line(&result);
    } else if fit.outcome.stopped {
        output::line(format!(
            "stopped at step {} and saved; go on with: mm train {} --run {} --resume",
            fit.outcome.state.step,
            arguments.config.display(),
            folder.display()
        ));
    } else {
        let skipped = if fit.broken.is_empty() {
            String::new()
        } else {
            format!(", {} broken samples skipped", fit.broken.len())
        };
        output::line(format!(
            "{}: {} steps over {} rows in {seconds:.0} s{skipped}",
            folder.display(),
            fit.outcome.state.step,
            fit.rows
        ));
    }
    Ok(())
}
