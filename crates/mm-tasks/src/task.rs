//! The interface of a task, and the registry that finds a task by the name in a config file.
//!
//! A task is a [`TaskSpec`]: how its config is checked, completed from the training data, and built into a
//! [`TaskModel`]. Tasks from other crates are added with one call of [`TaskRegistry::register`].

use crate::{
    Error, Result,
    config::{TASK_KEY, TaskConfig, parse_task, task_name},
    embedding::Embedder,
    metrics::{Metrics, metrics_table},
    report::Report,
};
use mm_core::{Device, Params, Registry, config as settings};
use mm_data::{FailedSample, Manifest, Split};
use mm_train::{Progress, Run, TrainOutcome};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

/// Reports long work outside the training loop: what, how much is done, of how much.
pub type ProgressFn<'a> = &'a mut dyn FnMut(&str, usize, usize);

/// Context from which tasks build and load models.
#[derive(Clone, Copy)]
pub struct TaskContext<'a> {
    /// Encoders by the `kind` that a config names.
    pub encoders: &'a Registry,
    /// Tasks by name.
    pub tasks: &'a TaskRegistry,
    /// Where models are computed.
    pub device: Device,
}

/// Callbacks and the stop flag of [`TaskModel::fit`].
pub struct FitContext<'a> {
    /// Reports steps and evaluations of the training loop.
    pub progress: &'a mut dyn Progress,
    /// Reports long work before and after the training loop.
    pub on_progress: ProgressFn<'a>,
    /// Set from outside to save a checkpoint and stop.
    pub stop: &'a AtomicBool,
}

/// The result of a training.
pub struct FitOutcome {
    /// The state of the training loop.
    pub training: TrainOutcome,
    /// Samples that could not be read and were skipped.
    pub failed: Vec<FailedSample>,
    /// Number of training rows.
    pub rows: usize,
}

/// Values that could not be read, as every command reports them: how many, and the first hundred.
pub fn failed_to_json(failed: &[FailedSample]) -> serde_json::Value {
    json!({"count": failed.len(), "examples": failed.iter().take(100).collect::<Vec<_>>()})
}

/// The result of an evaluation, for programs and for people.
pub struct EvaluationReport {
    /// For programs: `split`, `rows`, `metrics` and `failed`, and what a task adds.
    pub json: serde_json::Value,
    /// For people; the first row is the header.
    pub table: Vec<Vec<String>>,
}

impl EvaluationReport {
    /// The report of metrics on `rows` rows of a split.
    pub fn new(split: Split, rows: usize, metrics: Metrics) -> Self {
        Self {
            json: json!({"split": split, "rows": rows, "metrics": metrics, "failed": failed_to_json(&[])}),
            table: metrics_table(&[metrics]),
        }
    }

    /// Adds the values that could not be read.
    #[must_use]
    pub fn with_failed(mut self, failed: &[FailedSample]) -> Self {
        self.json["failed"] = failed_to_json(failed);
        self
    }
}

/// A task's model: built from a config to be trained, or loaded from a run folder to be used.
pub trait TaskModel {
    /// The name of its task.
    fn task(&self) -> &'static str;

    /// The command that uses a trained model, for errors: ``mm caption``.
    fn usage(&self) -> &'static str;

    /// The parameters.
    fn params(&self) -> &Params;

    /// The data set that its config names.
    fn dataset(&self) -> Result<Manifest>;

    /// Trains on a data set ([`TaskModel::dataset`]) into a run folder; continues from the run's last checkpoint if
    /// there is one.
    fn fit(&self, dataset: Manifest, run: &mut Run, context: FitContext<'_>) -> Result<FitOutcome>;

    /// Metrics on one split of its data set.
    fn evaluate(
        &self,
        split: Split,
        context: &TaskContext<'_>,
        on_progress: ProgressFn<'_>,
    ) -> Result<EvaluationReport>;

    /// The model as an embedder; `None` when it has no embeddings.
    fn as_embedder(&self) -> Option<&dyn Embedder> {
        None
    }

    /// The model as an embedder.
    ///
    /// # Errors
    /// When it has no embeddings, with the command to use instead.
    fn embedder(&self) -> Result<&dyn Embedder> {
        self.as_embedder().ok_or(Error::NoEmbeddings { task: self.task(), usage: self.usage() })
    }
}

/// Describes a task to the registry: how its configs are checked and its models built, loaded and reported.
#[derive(Clone)]
pub struct TaskSpec {
    /// The name that a config gives as `task`.
    pub name: &'static str,
    /// One line for people.
    pub description: &'static str,
    /// The command that uses a trained run, for errors: ``mm caption``.
    pub usage: &'static str,
    /// Checks a config without building anything.
    pub parse: fn(&toml::Value) -> Result<()>,
    /// Completes a config from the training data (classes, vocabularies, encoders), so that a run no longer depends on
    /// them. The path is the folder of relative paths; what was chosen is reported as text.
    pub resolve: fn(&mut toml::Value, &Path, &TaskContext<'_>, &mut dyn FnMut(String)) -> Result<()>,
    /// Builds an untrained model from a resolved config; the path is the folder of relative paths.
    pub build: fn(&toml::Value, &Path, &TaskContext<'_>) -> Result<Box<dyn TaskModel>>,
    /// Loads the model of a run folder with its best weights.
    pub load: fn(&Path, &TaskContext<'_>) -> Result<Box<dyn TaskModel>>,
    /// An HTML report of run folders that differ in their seed alone.
    pub report: fn(&[PathBuf], Split, &TaskContext<'_>, ProgressFn<'_>) -> Result<Report>,
    /// Whether a folder without a `config.toml` is a run of this task.
    pub owns_folder: fn(&Path) -> bool,
}

/// Tasks by name.
#[derive(Clone, Default)]
pub struct TaskRegistry {
    specs: BTreeMap<&'static str, TaskSpec>,
}

impl TaskRegistry {
    /// An empty registry; [`crate::tasks`] has the built-in tasks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a task, or replaces the one of that name.
    pub fn register(&mut self, spec: TaskSpec) -> &mut Self {
        self.specs.insert(spec.name, spec);
        self
    }

    /// The tasks, sorted by name.
    pub fn specs(&self) -> impl Iterator<Item = &TaskSpec> {
        self.specs.values()
    }

    /// The task of that name.
    ///
    /// # Errors
    /// When there is none; the nearest name is suggested.
    pub fn get(&self, name: &str) -> Result<&TaskSpec> {
        let known = self.specs.keys().copied();
        Ok(self.specs.get(name).ok_or_else(|| mm_core::Error::unknown("task", name, known))?)
    }

    /// The task that a config names.
    pub fn of_config(&self, value: &toml::Value) -> Result<&TaskSpec> {
        let names = || self.specs.keys().copied().collect::<Vec<_>>().join(", ");
        let missing = || Error::invalid(TASK_KEY, "nothing", format!("one of {}", names()));
        self.get(task_name(value).ok_or_else(missing)?)
    }

    /// The task of a run folder.
    pub fn of_run(&self, run: &Path) -> Result<&TaskSpec> {
        let config = run.join("config.toml");
        match self.specs.values().find(|spec| !config.exists() && (spec.owns_folder)(run)) {
            Some(spec) => Ok(spec),
            None => self.of_config(&settings::read(&config, &[])?),
        }
    }

    /// Refuses a run folder of another task than `expected`, with the command that takes it.
    pub fn check_run(&self, run: &Path, expected: &str) -> Result<()> {
        let found = self.of_run(run)?;
        if found.name == expected {
            return Ok(());
        }
        Err(Error::WrongTask {
            run: Some(run.to_owned()),
            found: found.name.to_owned(),
            expected: expected.to_owned(),
            usage: Some(found.usage.to_owned()),
        })
    }
}

impl TaskContext<'_> {
    /// Reads the config of a run folder, which must be of that config's task.
    pub fn run_config<C: TaskConfig>(&self, run: &Path) -> Result<C> {
        let value = settings::read(&run.join("config.toml"), &[])?;
        match task_name(&value) {
            Some(found) if found != C::TASK => {
                let usage = self.tasks.get(found).ok().map(|spec| spec.usage.to_owned());
                let (run, found, expected) = (Some(run.to_owned()), found.to_owned(), C::TASK.to_owned());
                Err(Error::WrongTask { run, found, expected, usage })
            }
            _ => parse_task(&value),
        }
    }

    /// Checks a config without building anything.
    pub fn check(&self, value: &toml::Value) -> Result<()> {
        (self.tasks.of_config(value)?.parse)(value)
    }

    /// Completes a config from its training data; see [`TaskSpec::resolve`].
    pub fn resolve(&self, value: &mut toml::Value, base: &Path, log: &mut dyn FnMut(String)) -> Result<()> {
        (self.tasks.of_config(value)?.resolve)(value, base, self, log)
    }

    /// Builds the model of a resolved config.
    pub fn build(&self, value: &toml::Value, base: &Path) -> Result<Box<dyn TaskModel>> {
        (self.tasks.of_config(value)?.build)(value, base, self)
    }

    /// Loads the model of a run folder with its best weights.
    pub fn load(&self, run: &Path) -> Result<Box<dyn TaskModel>> {
        (self.tasks.of_run(run)?.load)(run, self)
    }

    /// An HTML report of run folders of one task that differ in their seed alone.
    pub fn report(&self, runs: &[PathBuf], split: Split, on_progress: ProgressFn<'_>) -> Result<Report> {
        let first = runs.first().ok_or_else(|| Error::invalid("runs", "none", "at least one run folder"))?;
        let spec = self.tasks.of_run(first)?;
        for run in &runs[1..] {
            self.tasks.check_run(run, spec.name)?;
            check_same_config(first, run)?;
        }
        (spec.report)(runs, split, self, on_progress)
    }
}

/// The configs of a run folder by file, without their seeds: its own, or those of the members of an ensemble.
fn configs_without_seeds(run: &Path) -> Result<BTreeMap<PathBuf, toml::Value>> {
    let mut files = vec![PathBuf::from("config.toml")];
    if !run.join(&files[0]).exists() {
        let folders = std::fs::read_dir(run).map_err(|e| Error::file(run, e))?;
        let members = folders.filter_map(|entry| Some(PathBuf::from(entry.ok()?.file_name()).join("config.toml")));
        files = members.filter(|file| run.join(file).exists()).collect();
    }
    let read = |file: PathBuf| {
        let mut value = settings::read(&run.join(&file), &[])?;
        remove_seeds(&mut value);
        Ok((file, value))
    };
    files.into_iter().map(read).collect()
}

fn remove_seeds(value: &mut toml::Value) {
    if let toml::Value::Table(table) = value {
        table.remove("seed");
        table.iter_mut().for_each(|(_, value)| remove_seeds(value));
    }
}

/// Refuses runs whose configs differ in more than their seeds: their metrics are not those of one experiment.
fn check_same_config(first: &Path, other: &Path) -> Result<()> {
    let (expected, found) = (configs_without_seeds(first)?, configs_without_seeds(other)?);
    let difference = expected.keys().chain(found.keys()).find_map(|file| match (expected.get(file), found.get(file)) {
        (Some(a), Some(b)) => first_difference("", a, b),
        (a, _) => Some((file.display().to_string(), present(a.is_none()), present(a.is_some()))),
    });
    let Some((key, found, expected)) = difference else { return Ok(()) };
    let expected = format!("{expected} as in {}", first.display());
    Err(Error::invalid(format!("{}: {key}", other.display()), found, expected)
        .with_hint("runs of one report may differ in their seeds alone; report others one by one"))
}

fn present(is_present: bool) -> String {
    if is_present { "one" } else { "none" }.to_owned()
}

/// The first key, in the order of the alphabet, in which `b` differs from `a`: its path, and the values in `b` and `a`.
fn first_difference(path: &str, a: &toml::Value, b: &toml::Value) -> Option<(String, String, String)> {
    if let (toml::Value::Table(a), toml::Value::Table(b)) = (a, b) {
        let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        return keys.into_iter().find_map(|key| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match (a.get(key), b.get(key)) {
                (Some(a), Some(b)) => first_difference(&path, a, b),
                (a, b) => Some((path, shown(b), shown(a))),
            }
        });
    }
    (a != b).then(|| (path.to_owned(), shown(Some(b)), shown(Some(a))))
}

/// A value in one short line.
fn shown(value: Option<&toml::Value>) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.map_or_else(|| "nothing".to_owned(), ToString::to_string).replace('\n', " ");
    if text.chars().count() <= MAX_CHARS { text } else { text.chars().take(MAX_CHARS).collect::<String>() + "…" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_one_report_may_differ_in_their_seeds_alone() {
        let folder = tempfile::tempdir().unwrap();
        let run = |name: &str, text: &str| {
            let run = folder.path().join(name);
            std::fs::create_dir_all(&run).unwrap();
            std::fs::write(run.join("config.toml"), text).unwrap();
            run
        };
        let text = |lr: &str, seed: u32| {
            format!(
                "task = \"retrieval\"\n[data.split]\nseed = {seed}\n[train]\nseed = {seed}\noptimizer = {{ lr = {lr} }}\n"
            )
        };
        let first = run("a", &text("0.01", 0));
        assert!(check_same_config(&first, &run("b", &text("0.01", 7))).is_ok());
        let error = check_same_config(&first, &run("c", &text("0.1", 1))).unwrap_err().to_string();
        assert!(error.contains("train.optimizer.lr: found 0.1, expected 0.01 as in"), "{error}");
        // Ensembles are compared member by member.
        let (x, y) = (folder.path().join("x"), folder.path().join("y"));
        run("x/model-0", &text("0.01", 0));
        run("y/model-0", &text("0.01", 1));
        assert!(check_same_config(&x, &y).is_ok());
        run("y/model-1", &text("0.01", 1));
        assert!(
            check_same_config(&x, &y)
                .unwrap_err()
                .to_string()
                .contains("model-1/config.toml: found one, expected none")
        );
    }
}
