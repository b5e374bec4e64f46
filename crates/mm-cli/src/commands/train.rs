//! `mm train`: trains a model as a config file says.

use crate::{
    args::{config::read_config, output_path::local_path},
    context::{Context, stop_on_interrupt},
    exit::{Interrupted, interrupted},
    output,
    progress::{ItemProgress, TrainingProgress},
};
use anyhow::{Context as _, Result, bail};
use mm_core::{Device, Role, config, describe_error};
use mm_dist::{Environment, Group};
use mm_tasks::{FitContext, FitOutcome, TaskModel, fit, task::failed_to_json};
use mm_train::{Run, environment};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    rc::Rc,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// Train the model that a config file describes, into a run folder
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm train retrieval.toml --out runs/first --set train.epochs=5\n  mm train retrieval.toml --out runs/first --resume\n  mm train retrieval.toml --out runs/three --num-seeds 3\n\nThe run folder holds config.toml, metrics.jsonl, checkpoints/ and result.json.\n\nSeveral processes: `mm launch --nproc 4 -- mm train …` on this host; torchrun --no-python, srun or mpirun on several. loader.batch_size is that of all processes together, and the weights are those that one process learns. MM_DIST_TIMEOUT_SECONDS says how long they wait for each other (600)."
)]
pub(crate) struct Arguments {
    /// Config file, .toml or .json.
    config: PathBuf,
    /// Run folder [default: runs/ and the name of the config].
    #[arg(long, value_name = "DIR", value_parser = local_path())]
    out: Option<PathBuf>,
    /// Continue from the last checkpoint of the run folder (start, where there is none yet).
    #[arg(long)]
    resume: bool,
    /// Override a value of the config, for instance train.epochs=5; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Train this many runs with consecutive seeds, starting at the config's, into seed-0, seed-1 … of the run folder.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    num_seeds: Option<u32>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let environment = Environment::read()?.filter(|e| e.world_size > 1);
    let Some(environment) = environment else {
        return run_in_group(arguments, context, &*stop_on_interrupt("this step")?);
    };
    let device = context.use_own_gpu(&environment)?;
    // One process speaks for all.
    output::set_quiet(output::is_quiet() || environment.rank > 0);
    let group = Rc::new(Group::join_on(&environment, device)?);
    group.agree("the version of mm", env!("CARGO_PKG_VERSION"))?;
    compare_programs(&group)?;
    // Not before: a process that still waits for the others has nothing to save, and a signal ends it.
    let stop = stop_on_interrupt("this step")?;
    let result = mm_dist::with_group(&group, || run_in_group(arguments, context, &stop));
    if let Some(error) = result.as_ref().err().filter(|error| !error.is::<Interrupted>()) {
        group.report_failure(&describe_error(error.as_ref()));
    }
    if result.is_ok() && device != Device::Cpu {
        // A process that ends takes NCCL's connections with it.
        group.barrier()?;
    }
    result
}

/// Index of this process among those that train together.
fn rank() -> usize {
    mm_dist::current().map_or(0, |group| group.rank())
}

fn run_in_group(arguments: &Arguments, context: &Context, stop: &AtomicBool) -> Result<()> {
    let value = read_config(&arguments.config, &arguments.overrides)?;
    // A wrong config fails before any folder is made.
    context.tasks()?.check(&value).with_context(|| arguments.config.display().to_string())?;
    let name = arguments.config.file_stem().map(PathBuf::from).unwrap_or_default();
    let out = arguments.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
    let Some(count) = arguments.num_seeds else { return train_one(value, &out, arguments, context, stop) };
    let first = value.get("train").and_then(|t| t.get("seed")).and_then(toml::Value::as_integer).unwrap_or(0);
    for seed in first..first + i64::from(count) {
        let mut value = value.clone();
        config::set(&mut value, &format!("train.seed={seed}"))?;
        train_one(value, &out.join(format!("seed-{seed}")), arguments, context, stop)?;
    }
    Ok(())
}

/// The folder that relative paths of a config are relative to: what the config says, else the config's own folder.
pub(crate) fn set_base_dir(value: &mut toml::Value, config: &Path) -> Result<PathBuf> {
    let base = match value.get("base_dir").and_then(toml::Value::as_str) {
        Some(base) => PathBuf::from(base),
        None => std::fs::canonicalize(config.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))?,
    };
    config::set(value, &format!("base_dir={}", toml::Value::String(base.display().to_string())))?;
    Ok(base)
}

fn train_one(
    mut value: toml::Value,
    out: &Path,
    arguments: &Arguments,
    context: &Context,
    stop: &AtomicBool,
) -> Result<()> {
    let started = Instant::now();
    let base = set_base_dir(&mut value, &arguments.config)?;
    context.tasks()?.resolve(&mut value, &base, &mut |text| output::note(text))?;
    agree_on_config(&value)?;
    // Rank 0 writes the run folder; the others have one that nobody sees.
    let scratch = (rank() > 0).then(tempfile::tempdir).transpose()?;
    let out = scratch.as_ref().map_or(out, |folder| folder.path());
    let resumed = arguments.resume && out.join("config.toml").exists();
    if resumed && config::read(&out.join("config.toml"), &[])? != value {
        bail!(
            "{}: its config differs from {}; resume with the config that the run started with, or choose another --out",
            out.display(),
            arguments.config.display()
        );
    }
    let model = context.tasks()?.build(&value, &base)?;
    // A data set that cannot be read must leave no folder behind.
    let manifest = model.dataset()?;
    fit::agree_on_data(&manifest)?;
    let mut run = if resumed {
        Run::resume(out)?
    } else {
        Run::create(out, &value, environment(json!({"device": context.device()?.to_string()})))?
    };
    for name in ["last", "best"] {
        run.share_checkpoint(name)?;
    }
    let mut progress = ItemProgress::new();
    let on_progress = &mut |label: &str, done, total| progress.update(label, done, total);
    let fit_context = FitContext { progress: &mut TrainingProgress::new(), on_progress, stop };
    let fit = model.fit(manifest, &mut run, fit_context);
    progress.finish();
    let fit = fit?;
    if rank() > 0 {
        if fit.training.stopped {
            interrupted!("rank {} stopped with the others", rank());
        }
        return Ok(());
    }
    finish(&fit, model.as_ref(), out, started, context)?;
    if fit.training.stopped || stop.load(Ordering::Relaxed) {
        interrupted!(
            "saved at step {}; continue with: {} train {} --out {} --resume",
            fit.training.state.step,
            crate::exit::program_name(),
            arguments.config.display(),
            out.display()
        );
    }
    Ok(())
}

/// Warns where a process runs another program of the same version: it may compute otherwise.
fn compare_programs(group: &Group) -> Result<()> {
    let hashes = group.gather(&program_hash())?;
    let differs = |hash: &Option<String>| hash.is_some() && hashes[0].is_some() && *hash != hashes[0];
    let ranks: Vec<String> = (0..).zip(&hashes).filter(|(_, hash)| differs(hash)).map(|(n, _)| format!("rank {n}")).collect();
    if group.rank() == 0 && !ranks.is_empty() {
        output::warning(format!(
            "{}: another build of {} than that of rank 0, which may compute otherwise; copy the same program to all hosts",
            ranks.join(", "),
            crate::exit::program_name()
        ));
    }
    Ok(())
}

/// The BLAKE3 hash of the file of this program; none where it cannot be read, for instance since it was deleted.
fn program_hash() -> Option<String> {
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(std::env::current_exe().ok()?).ok()?;
    hasher.update_reader(file).ok()?;
    Some(hasher.finalize().to_hex().to_string())
}

/// Checks that all processes train the same: their configs may differ in the folder of relative paths alone.
fn agree_on_config(value: &toml::Value) -> Result<()> {
    let Some(group) = mm_dist::current() else { return Ok(()) };
    let mut value = value.clone();
    if let Some(table) = value.as_table_mut() {
        table.remove("base_dir");
    }
    Ok(group.agree("the config", &toml::to_string_pretty(&value)?)?)
}

/// Writes result.json and prints the result.
fn finish(fit: &FitOutcome, model: &dyn TaskModel, out: &Path, started: Instant, context: &Context) -> Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    let saved = &fit.training.state;
    let failed = fit.failed.len();
    let result = json!({
        "out": output::path(out), "steps": saved.step, "epochs": saved.epoch, "finished": saved.finished, "rows": fit.rows,
        "failed": failed_to_json(&fit.failed), "best": saved.best,
        "parameters": {
            "trainable": model.params().num_elements(&[Role::Trainable]), "frozen": model.params().num_elements(&[Role::Frozen]),
        },
        "seconds": seconds, "peak_memory_bytes": output::peak_memory(),
    });
    mm_core::checkpoint::write_atomic(&out.join("result.json"), format!("{result:#}\n").as_bytes())?;
    if context.json {
        output::line(&result);
    } else if !fit.training.stopped {
        let failed = if failed == 0 { String::new() } else { format!(", {failed} values could not be read") };
        output::line(format!(
            "{}: {} steps over {} rows in {seconds:.0} s{failed}",
            out.display(),
            saved.step,
            fit.rows
        ));
    }
    Ok(())
}
