//! Kills mm and xtask (SIGKILL) at random instants and runs them again: the end must be, byte for byte, that of a run
//! that nobody interrupted. Also a disk that fills, and two processes on one output or one cache.

mod compare;
mod faults;
mod hub;
mod process;
mod scenarios;

use crate::{cargo, setup};
use anyhow::{Context, Result, bail};
use mm_hub::paths::cache;
use process::{Programs, Rng};
use scenarios::Scenario;
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

#[derive(Default, clap::Args)]
pub struct Arguments {
    /// Names of what to interrupt; `--list` prints them [default: all].
    scenarios: Vec<String>,
    /// Kills in all, shared out evenly.
    #[arg(long, default_value_t = 100, value_name = "N")]
    kills: usize,
    /// Seed of the instants; printed, so that a failure can be repeated.
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Scenarios that run at the same time.
    #[arg(long, default_value_t = 1, value_name = "N")]
    jobs: usize,
    /// The program mm to test [default: a release build of this workspace].
    #[arg(long, value_name = "FILE")]
    mm: Option<PathBuf>,
    /// Print the names of the scenarios.
    #[arg(long)]
    list: bool,
}

/// What a scenario went through.
#[derive(Default)]
struct Outcome {
    kills: usize,
    completions: usize,
    full_disks: usize,
    pairs: usize,
}

/// All scenarios with a program that is built already, each with a few kills.
pub fn run_each(mm: PathBuf, kills: usize) -> Result<()> {
    let kills = kills * scenarios::SCENARIOS.len();
    run(&Arguments { kills, mm: Some(mm), ..Arguments::default() })
}

pub fn run(arguments: &Arguments) -> Result<()> {
    if arguments.list {
        scenarios::SCENARIOS.iter().for_each(|s| println!("{:<10} {}", s.name, s.about));
        return Ok(());
    }
    let selected = select(&arguments.scenarios)?;
    setup::run(false, false)?;
    let mm = match &arguments.mm {
        Some(mm) => mm.canonicalize().with_context(|| format!("--mm {}", mm.display()))?,
        None => cargo::built_mm()?,
    };
    let programs = Programs { mm, xtask: std::env::current_exe()? };
    let folder = cache().join("torture").join(std::process::id().to_string());
    std::fs::create_dir_all(&folder)?;
    println!("seed {}, {} kills, folder {}", arguments.seed, arguments.kills, folder.display());
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let share = arguments.kills.div_ceil(selected.len());
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs.clamp(1, selected.len()) {
            scope.spawn(|| {
                while let Some(scenario) = selected.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let begun = Instant::now();
                    match torture(scenario, &folder.join(scenario.name), &programs, arguments.seed, share) {
                        Ok(outcome) => println!(
                            "{:<10} {} kills, {} completed runs identical, {} full disks, {} pairs of processes, {:.0} s",
                            scenario.name,
                            outcome.kills,
                            outcome.completions,
                            outcome.full_disks,
                            outcome.pairs,
                            begun.elapsed().as_secs_f64()
                        ),
                        Err(error) => {
                            println!("{:<10} FAILED: {error:#}", scenario.name);
                            failures.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(scenario.name);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    if !failures.is_empty() {
        bail!("failed: {}; their files are in {}", failures.join(", "), folder.display());
    }
    // Made by this command, under a name that holds its process number.
    std::fs::remove_dir_all(&folder).with_context(|| format!("{} cannot be removed", folder.display()))
}

fn select(names: &[String]) -> Result<Vec<&'static Scenario>> {
    let known = || scenarios::SCENARIOS.iter().map(|s| s.name).collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        return Ok(scenarios::SCENARIOS.iter().collect());
    }
    let find = |name: &String| {
        let found = scenarios::SCENARIOS.iter().find(|s| s.name == *name);
        found.with_context(|| format!("no scenario `{name}`; the scenarios are {}", known()))
    };
    names.iter().map(find).collect()
}

/// Runs a scenario once undisturbed, then disturbs it until it was killed `kills` times.
fn torture(scenario: &Scenario, folder: &Path, programs: &Programs, seed: u64, kills: usize) -> Result<Outcome> {
    let reference = folder.join("reference");
    (scenario.prepare)(&reference)?;
    let begun = Instant::now();
    scenario.start(programs, &reference, false, &[])?.finish().context("the undisturbed run")?;
    let seconds = begun.elapsed().as_secs_f64();
    scenario.export(programs, &reference)?;
    let expected = compare::outputs(&reference, scenario.outputs).context("the undisturbed run")?;
    let check = |case: &Path| -> Result<()> {
        scenario.export(programs, case)?;
        compare::check(case, scenario.outputs, &expected)
    };
    let mut rng = Rng::new(seed, scenario.name);
    let mut outcome = Outcome::default();
    let mut number = 0;
    while outcome.kills < kills {
        let case = folder.join(format!("case-{number}"));
        let before = outcome.kills;
        let limit = (kills - before).min(1 + rng.below(6));
        outcome.kills += faults::kill_and_resume(scenario, &case, programs, seconds, limit, &mut rng)
            .with_context(|| format!("case {number}"))?;
        check(&case).with_context(|| format!("case {number}"))?;
        std::fs::remove_dir_all(&case)?;
        outcome.completions += 1;
        number += 1;
        // A run that is always done before its instant would never be killed.
        if number > 40 + 4 * kills {
            bail!("only {} of {kills} kills came before the end of the run", outcome.kills);
        }
    }
    for _ in 0..kills.div_ceil(20) {
        let case = folder.join("full");
        if faults::fill_disk_and_resume(scenario, &case, programs, &mut rng).context("a full disk")? {
            outcome.full_disks += 1;
        }
        check(&case).context("after a full disk")?;
        std::fs::remove_dir_all(&case)?;
    }
    let case = folder.join("pair");
    faults::run_two(scenario, &case, programs).context("two processes on one output")?;
    check(&case).context("two processes on one output")?;
    std::fs::remove_dir_all(&case)?;
    outcome.pairs += 1;
    if let Some((extra, outputs)) = scenario.shared_cache {
        let case = folder.join("shared");
        faults::share_cache(scenario, &case, programs, extra).context("two processes with one cache")?;
        check(&case).context("two processes with one cache")?;
        compare::check_as(&case, outputs, &expected).context("two processes with one cache")?;
        std::fs::remove_dir_all(&case)?;
        outcome.pairs += 1;
    }
    Ok(outcome)
}
