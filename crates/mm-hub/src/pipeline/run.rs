//! Steps are run, as many at a time as asked for.

use super::{
    Options, Pipeline, graph,
    key::key,
    outputs::check_links,
    plan::{Decision, decide},
    process::{self, Output},
    state::{State, lock_outputs, lock_pipeline},
    step::{Action, Step},
    wrong,
};
use crate::{
    error::{Error, Result, bail, describe},
    hub::Hub,
    paths::exists,
    registry::{Kind, Registry, is_hub_name},
    report::{line, note},
};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// What happened to a step.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// Its name.
    pub step: String,
    /// `done`, `skipped`, or with a dry run `would_run`, `would_skip`, `would_fail`.
    pub state: &'static str,
    /// Why it ran or was skipped.
    pub reason: String,
    /// How long it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
}

/// What a pipeline is run with.
pub struct Runner<'a> {
    /// The program mm, found (or built) when the first step needs it.
    pub mm: &'a (dyn Fn() -> Result<PathBuf> + Sync),
    /// No further step begins once this is set.
    pub stop: &'a AtomicBool,
    /// Whether standard output is for the caller alone.
    pub keeps_stdout: bool,
}

impl Runner<'_> {
    /// Runs the steps whose commands or inputs changed, and returns what happened to each step, in the order in which
    /// they ended.
    ///
    /// # Errors
    /// When a step fails: no further one begins, those that run are waited for. Completed steps are skipped by the next
    /// run.
    pub fn run(&self, pipeline: &Pipeline, options: &Options) -> Result<Vec<StepReport>> {
        let forced = forced_steps(pipeline, options)?;
        let wrong_place = |reason| wrong(&pipeline.file, reason);
        check_links(&pipeline.steps, &pipeline.out, &pipeline.file).map_err(wrong_place)?;
        note(&pipeline.about);
        if options.dry_run {
            return Ok(dry_run(pipeline, &forced));
        }
        let _lock = lock_pipeline(&pipeline.out, &pipeline.file)?;
        let state = State::open(&pipeline.out);
        let jobs = options.jobs.clamp(1, pipeline.steps.len().max(1));
        let work = Work {
            runner: self,
            pipeline,
            forced,
            jobs,
            mm: OnceLock::new(),
            schedule: Mutex::new(Schedule::default()),
            changed: Condvar::new(),
            state: Mutex::new(state),
        };
        std::thread::scope(|scope| {
            for _ in 1..jobs {
                scope.spawn(|| work.run_steps());
            }
            work.run_steps();
        });
        let schedule = work.schedule.into_inner().unwrap_or_else(PoisonError::into_inner);
        match schedule.failed {
            // Those that ran at the same time are counted too.
            Some(Error::Step { step, source, .. }) => {
                Err(Error::Step { step, completed: schedule.ended.len(), source })
            }
            Some(error) => Err(error),
            None => Ok(schedule.reports),
        }
    }
}

/// The option that makes each step run, by index.
fn forced_steps(pipeline: &Pipeline, options: &Options) -> Result<Vec<Option<&'static str>>> {
    let steps = &pipeline.steps;
    let mut forced = vec![options.force.then_some("--force"); steps.len()];
    if let Some(from) = &options.from {
        let first: Vec<usize> =
            (0..steps.len()).filter(|n| steps[*n].name == *from || steps[*n].base == *from).collect();
        if first.is_empty() {
            let names: Vec<&str> = steps.iter().map(|s| s.name.as_str()).collect();
            return Err(wrong(
                &pipeline.file,
                format!("--from {from}: no such step; the steps are {}", names.join(", ")),
            ));
        }
        for index in graph::with_dependents(&first, &pipeline.waits, &pipeline.order) {
            forced[index] = Some("--from");
        }
    }
    Ok(forced)
}

/// Says what would happen, as far as it can be known before a step runs.
fn dry_run(pipeline: &Pipeline, forced: &[Option<&'static str>]) -> Vec<StepReport> {
    let state = State::open(&pipeline.out);
    let mut would_run: BTreeSet<usize> = BTreeSet::new();
    let mut reports = Vec::new();
    for (number, index) in pipeline.order.iter().enumerate() {
        let step = &pipeline.steps[*index];
        let decision = decide(step, &key(step), &state, &pipeline.registry, forced[*index]);
        let rewritten = step.inputs.iter().find_map(|input| {
            let writes =
                |n: &&usize| pipeline.steps[**n].outputs.iter().any(|o| input.starts_with(o) || o.starts_with(input));
            would_run.iter().find(writes).map(|n| (input, &pipeline.steps[*n].name))
        });
        let (state, reason) = match (decision, rewritten) {
            (Decision::Run(reason), _) => match obstacle(pipeline, step, &state, &would_run) {
                Some(obstacle) => ("would_fail", obstacle),
                None => ("would_run", reason),
            },
            (Decision::Skip(_), Some((input, writer))) => {
                let input = input.display();
                ("would_run", format!("step `{writer}` writes its input {input} first; skipped if that stays the same"))
            }
            (Decision::Skip(reason), None) => ("would_skip", reason),
        };
        let text = match state {
            "would_skip" => "would be skipped",
            "would_run" => "would run",
            _ => "would fail",
        };
        if state != "would_skip" {
            would_run.insert(*index);
        }
        note(format!("[{}/{}] {}: {text}: {reason}", number + 1, pipeline.steps.len(), step.name));
        reports.push(StepReport { step: step.name.clone(), state, reason, seconds: None });
    }
    reports
}

/// Why a step that has to run cannot, as far as it is known: an input that nothing writes, or an output that is not its own.
fn obstacle(pipeline: &Pipeline, step: &Step, state: &State, would_run: &BTreeSet<usize>) -> Option<String> {
    if step.is_download() {
        return None;
    }
    let is_written = |input: &PathBuf| {
        let mut written =
            would_run.iter().flat_map(|n| pipeline.steps[*n].outputs.iter().chain(&pipeline.steps[*n].folders));
        written.any(|w| input.starts_with(w)) || step.folders.iter().any(|folder| input.starts_with(folder))
    };
    let missing = step.inputs.iter().find(|input| !exists(input) && !is_written(input));
    missing.map(|input| format!("its input {} does not exist", input.display())).or_else(|| state.refusal(step))
}

/// Which steps are left.
#[derive(Default)]
struct Schedule {
    begun: BTreeSet<usize>,
    ended: BTreeSet<usize>,
    failed: Option<Error>,
    reports: Vec<StepReport>,
}

/// What the threads share.
struct Work<'a> {
    runner: &'a Runner<'a>,
    pipeline: &'a Pipeline,
    forced: Vec<Option<&'static str>>,
    jobs: usize,
    mm: OnceLock<Result<PathBuf, String>>,
    schedule: Mutex<Schedule>,
    changed: Condvar,
    state: Mutex<State>,
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Work<'_> {
    /// Runs steps until none is left, or one has failed.
    fn run_steps(&self) {
        while let Some(index) = self.next() {
            let result = self.run_step(index);
            let mut schedule = guard(&self.schedule);
            match result {
                Ok(report) => {
                    schedule.ended.insert(index);
                    schedule.reports.push(report);
                }
                Err(error) => {
                    let step = self.pipeline.steps[index].name.clone();
                    let error = match error {
                        // A program need not say that it ended because of Ctrl-C.
                        _ if self.is_stopped() => Error::Interrupted { step },
                        Error::Interrupted { .. } => error,
                        other => Error::Step { step, completed: 0, source: Box::new(other) },
                    };
                    match &schedule.failed {
                        None => schedule.failed = Some(error),
                        // Only one error is returned.
                        Some(_) => line(describe(&error)),
                    }
                }
            }
            self.changed.notify_all();
        }
    }

    fn is_stopped(&self) -> bool {
        self.runner.stop.load(Ordering::Relaxed)
    }

    /// The next step that can begin; waits for one.
    fn next(&self) -> Option<usize> {
        let mut schedule = guard(&self.schedule);
        loop {
            let left = self.pipeline.order.iter().copied().find(|n| !schedule.begun.contains(n))?;
            if self.is_stopped() && schedule.failed.is_none() {
                schedule.failed = Some(Error::Interrupted { step: self.pipeline.steps[left].name.clone() });
            }
            if schedule.failed.is_some() {
                return None;
            }
            let can_begin = |n: &usize| {
                !schedule.begun.contains(n) && self.pipeline.waits[*n].iter().all(|w| schedule.ended.contains(w))
            };
            if let Some(next) = self.pipeline.order.iter().copied().find(can_begin) {
                schedule.begun.insert(next);
                return Some(next);
            }
            schedule = self.changed.wait(schedule).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run_step(&self, index: usize) -> Result<StepReport> {
        let (step, registry) = (&self.pipeline.steps[index], &self.pipeline.registry);
        let number = self.pipeline.order.iter().position(|n| *n == index).unwrap_or(index) + 1;
        let title = format!("[{number}/{}] {}", self.pipeline.steps.len(), step.name);
        let report = |state, reason, seconds| StepReport { step: step.name.clone(), state, reason, seconds };
        let _locks = if step.is_download() { Vec::new() } else { lock_outputs(&self.pipeline.out, step)? };
        let current = key(step);
        let decision = decide(step, &current, &guard(&self.state), registry, self.forced[index]);
        let reason = match decision {
            Decision::Skip(reason) => {
                note(format!("{title}: skipped: {reason}"));
                return Ok(report("skipped", reason, None));
            }
            Decision::Run(reason) => reason,
        };
        note(format!("{title} … ({reason})"));
        let start = Instant::now();
        if step.is_download() {
            download(step, registry)?;
        } else {
            self.prepare(step)?;
            self.execute(step, start)?;
        }
        let seconds = start.elapsed().as_secs_f64();
        note(format!("{title}: {seconds:.1} s"));
        Ok(report("done", reason, Some(seconds)))
    }

    /// Runs the program of a step and records how it ended.
    fn execute(&self, step: &Step, start: Instant) -> Result<()> {
        // What was fetched just now is among the inputs.
        let key = key(step);
        guard(&self.state).begin(step, &key)?;
        let written = || match step.outputs.iter().find(|path| !exists(path)) {
            Some(missing) => bail!("it succeeded and did not write {}, one of its outputs", missing.display()),
            None => Ok(()),
        };
        if let Err(error) = self.start(step).and_then(|()| written()) {
            guard(&self.state).fail(&key)?;
            return Err(error);
        }
        guard(&self.state).complete(step, &key, start.elapsed().as_secs_f64())
    }

    /// Fetches what a step uses, and refuses inputs that are missing.
    fn prepare(&self, step: &Step) -> Result<()> {
        for (kind, name) in &step.needs {
            self.pipeline.registry.fetch(*kind, name)?;
        }
        match step.inputs.iter().find(|path| !exists(path)) {
            Some(missing) => bail!("its input {} does not exist; no step before it writes it", missing.display()),
            None => Ok(()),
        }
    }

    fn start(&self, step: &Step) -> Result<()> {
        for folder in step.outputs.iter().filter_map(|path| path.parent()) {
            crate::paths::create_dir(folder)?;
        }
        let mm = match &step.action {
            Action::Mm(_) => {
                let found = self.mm.get_or_init(|| (self.runner.mm)().map_err(|e| describe(&e)));
                Some(found.clone().map_err(Error::Other)?)
            }
            _ => None,
        };
        let output = match (self.jobs, self.runner.keeps_stdout) {
            (1, false) => Output::Inherit,
            (1, true) => Output::Stderr,
            _ => Output::Labelled,
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (self.jobs > 1).then(|| (cores / self.jobs).max(1));
        process::run(step, mm.as_deref(), output, threads)
    }
}

/// Fetches a data set or a model.
fn download(step: &Step, registry: &Registry) -> Result<()> {
    match &step.action {
        Action::Fetch(name) => registry.fetch(Kind::Data, name).map(drop),
        Action::Pull(name) if is_hub_name(name) => Hub::from_environment()?.pull(name).map(drop),
        Action::Pull(name) => registry.fetch(Kind::Models, name).map(drop),
        Action::Mm(_) | Action::Run(_) => Ok(()),
    }
}
