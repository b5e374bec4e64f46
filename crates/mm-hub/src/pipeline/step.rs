//! A step: what it does, what it reads and what it writes.

use super::expand::{Values, Variables, text_of};
use crate::{
    paths::normalized,
    registry::{Kind, Registry, is_hub_name},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Variables that every pipeline has.
pub(super) const BUILT_IN: [&str; 4] = ["cache", "here", "out", "root"];

/// The largest number of settings of one step.
const MAX_SETTINGS: usize = 1000;

/// A step as the file has it.
pub(super) struct RawStep {
    pub(super) table: toml::Table,
    pub(super) file: PathBuf,
    /// The folder of the file.
    pub(super) here: PathBuf,
    /// The folder that paths are relative to.
    pub(super) root: PathBuf,
}

/// The keys of a step.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepToml {
    name: String,
    /// Names of the steps that it waits for, besides those that write what it reads. Without this key, it waits for all
    /// steps before it.
    depends: Option<Vec<String>>,
    /// Variables with a list of values each: the step runs once for each combination.
    #[serde(default)]
    matrix: toml::Table,
    /// A data set to fetch.
    fetch: Option<String>,
    /// Weights to pull.
    pull: Option<String>,
    /// Arguments of `mm`.
    mm: Option<Vec<String>>,
    /// Another program with its arguments.
    run: Option<Vec<String>>,
    #[serde(default)]
    inputs: Vec<String>,
    #[serde(default)]
    outputs: Vec<String>,
    /// Environment variables of the program.
    #[serde(default)]
    env: toml::Table,
    /// The folder in which the program runs.
    cwd: Option<String>,
    /// Whether outputs that an earlier run made are deleted first.
    #[serde(default)]
    fresh: bool,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Fetches a data set.
    Fetch(String),
    /// Pulls the weights of a model.
    Pull(String),
    /// Runs `mm` with these arguments.
    Mm(Vec<String>),
    /// Runs a program with its arguments.
    Run(Vec<String>),
}

/// A step with its variables put in; one of several where it has a matrix.
#[derive(Debug, Clone)]
pub struct Step {
    /// `NAME`, or `NAME[variable=value,…]` with a matrix.
    pub name: String,
    /// The name in the file.
    pub base: String,
    /// What it does.
    pub action: Action,
    /// Files and folders that it reads.
    pub inputs: Vec<PathBuf>,
    /// Files and folders that it writes.
    pub outputs: Vec<PathBuf>,
    /// Environment variables of the program.
    pub env: BTreeMap<String, String>,
    /// The folder in which the program runs.
    pub cwd: PathBuf,
    /// Whether outputs that an earlier run made are deleted first (for a run folder, which must be new).
    pub fresh: bool,
    /// Names of steps that it waits for; without any, all steps before it.
    pub(super) depends: Option<Vec<String>>,
    /// Data sets and models whose folders it uses.
    pub(super) needs: Vec<(Kind, String)>,
    /// The folders of [`Self::needs`], or of what it fetches.
    pub(super) folders: Vec<PathBuf>,
}

impl Step {
    /// Whether it only fetches something into the cache.
    pub(super) fn is_download(&self) -> bool {
        matches!(self.action, Action::Fetch(_) | Action::Pull(_))
    }
}

/// The steps of a file's step: one for each combination of its matrix.
pub(super) fn build(raw: &RawStep, values: &Values, registry: &Registry) -> Result<Vec<Step>, String> {
    let name = raw.table.get("name").and_then(toml::Value::as_str).unwrap_or("").to_owned();
    let in_step = |reason: String| format!("step `{name}`: {reason}");
    let toml: StepToml = raw.table.clone().try_into().map_err(|e: toml::de::Error| in_step(e.to_string()))?;
    if name.is_empty() || name.contains(['.', '[', ']', '=', ',', '$']) {
        return Err(in_step("expected a name without . [ ] = , $".into()));
    }
    let settings = combinations(&toml.matrix).map_err(in_step)?;
    settings.iter().map(|setting| instance(&toml, raw, values, registry, setting).map_err(in_step)).collect()
}

/// A value for each variable of a matrix.
type Setting = Vec<(String, String)>;

fn combinations(matrix: &toml::Table) -> Result<Vec<Setting>, String> {
    let mut settings: Vec<Setting> = vec![Vec::new()];
    for (name, list) in matrix {
        let list = list.as_array().filter(|l| !l.is_empty() && !l.iter().any(|v| v.is_array() || v.is_table()));
        let list = list.ok_or_else(|| format!("matrix.{name}: expected a list of numbers or strings"))?;
        if settings.len() * list.len() > MAX_SETTINGS {
            return Err(format!("matrix: more than {MAX_SETTINGS} combinations"));
        }
        let with = |setting: &Setting, value| [setting.as_slice(), &[(name.clone(), text_of(value))]].concat();
        settings = settings.iter().flat_map(|s| list.iter().map(move |v| with(s, v))).collect();
    }
    Ok(settings)
}

fn instance(
    toml: &StepToml,
    raw: &RawStep,
    values: &Values,
    registry: &Registry,
    setting: &Setting,
) -> Result<Step, String> {
    let mut values = values.clone();
    values.insert("here".into(), raw.here.display().to_string().into());
    values.insert("root".into(), raw.root.display().to_string().into());
    for (name, value) in setting {
        if BUILT_IN.contains(&name.as_str()) {
            return Err(format!("matrix.{name}: the variable is built in; choose another name"));
        }
        values.insert(name.clone(), value.clone().into());
    }
    let variables = Variables::new(values, registry);
    let expand_all = |list: &[String]| list.iter().map(|text| variables.expand(text)).collect::<Result<Vec<_>, _>>();
    let path = |text: &str| normalized(&raw.root.join(text));
    let paths = |list: &[String]| Ok::<_, String>(expand_all(list)?.iter().map(|text| path(text)).collect::<Vec<_>>());
    let action = action(toml, &variables)?;
    let (inputs, outputs) = (paths(&toml.inputs)?, paths(&toml.outputs)?);
    let depends = toml.depends.as_deref().map(expand_all).transpose()?;
    let cwd = variables.expand(toml.cwd.as_deref().unwrap_or(""))?;
    let mut env = BTreeMap::new();
    for (name, value) in &toml.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.is_array() || value.is_table() {
            return Err(format!("env.{name}: expected a string or a number"));
        }
        env.insert(name.clone(), variables.expand(&text_of(value))?);
    }
    let needs = variables.into_used();
    let mut folders = Vec::new();
    for (kind, item) in needs.iter().cloned().chain(fetched(&action)) {
        folders.push(registry.folder(kind, &item).map_err(|e| e.to_string())?);
    }
    let labels: Vec<String> = setting.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let suffix = if labels.is_empty() { String::new() } else { format!("[{}]", labels.join(",")) };
    Ok(Step {
        name: format!("{}{suffix}", toml.name),
        base: toml.name.clone(),
        action,
        inputs,
        outputs,
        env,
        cwd: normalized(&raw.root.join(Path::new(&cwd))),
        fresh: toml.fresh,
        depends,
        needs,
        folders,
    })
}

/// The item of the registry that an action fetches.
fn fetched(action: &Action) -> Option<(Kind, String)> {
    match action {
        Action::Fetch(name) => Some((Kind::Data, name.clone())),
        Action::Pull(name) if !is_hub_name(name) => Some((Kind::Models, name.clone())),
        _ => None,
    }
}

fn action(toml: &StepToml, variables: &Variables<'_>) -> Result<Action, String> {
    let words = |list: &[String]| list.iter().map(|text| variables.expand(text)).collect::<Result<Vec<_>, _>>();
    let mut found = Vec::new();
    if let Some(name) = &toml.fetch {
        found.push(Action::Fetch(variables.expand(name)?));
    }
    if let Some(name) = &toml.pull {
        found.push(Action::Pull(variables.expand(name)?));
    }
    if let Some(list) = &toml.mm {
        found.push(Action::Mm(words(list)?));
    }
    if let Some(list) = &toml.run {
        if list.is_empty() {
            return Err("run: an empty list; expected a program and its arguments".into());
        }
        found.push(Action::Run(words(list)?));
    }
    match (found.pop(), found.is_empty()) {
        (Some(action), true) => Ok(action),
        _ => Err("expected exactly one of fetch, pull, mm, run".into()),
    }
}
