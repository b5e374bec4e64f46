//! The file of a pipeline, and those that it includes.

use super::{
    Pipeline,
    expand::{Variables, text_of},
    graph, outputs,
    step::{self, RawStep},
    wrong,
};
use crate::{
    error::{Error, Result, describe},
    paths::normalized,
    registry::{Item, Items, Registry},
};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The keys of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileToml {
    /// A description of one line.
    #[serde(default)]
    about: String,
    /// The folder that paths are relative to, itself relative to the file.
    root: Option<String>,
    /// The folder that everything is written below.
    out: Option<String>,
    /// Files whose variables, sources and steps come first.
    #[serde(default)]
    include: Vec<String>,
    /// A file with `[[data]]` and `[[models]]`.
    registry: Option<String>,
    #[serde(default)]
    vars: toml::Table,
    #[serde(default)]
    data: Vec<Item>,
    #[serde(default)]
    models: Vec<Item>,
    #[serde(default)]
    step: Vec<toml::Table>,
}

/// Reads the text of a file.
type Read<'a> = &'a dyn Fn(&Path) -> Result<String>;

/// What the files of a pipeline say together.
struct Collected {
    about: String,
    out: Option<String>,
    vars: toml::Table,
    steps: Vec<RawStep>,
    registry: Registry,
    /// The files that were read.
    seen: Vec<PathBuf>,
}

/// Parses a pipeline and what it includes, applies overrides (`--set`), puts variables in and checks everything that can be
/// checked before a step runs. `file` is an absolute path, `read` returns the text of a file.
pub fn parse(file: &Path, overrides: &[&str], registry: Registry, read: Read<'_>) -> Result<Pipeline> {
    let (about, vars) = (String::new(), toml::Table::new());
    let mut all = Collected { about, out: None, vars, steps: Vec::new(), registry, seen: Vec::new() };
    let root = collect(file, read, &mut Vec::new(), &mut all)?;
    if all.about.is_empty() {
        return Err(wrong(file, "no `about`; expected a description of the pipeline in one line"));
    }
    for item in overrides {
        set(&mut all, item).map_err(|reason| wrong(file, reason))?;
    }
    let out = normalized(&root.join(all.out.as_deref().unwrap_or("runs")));
    outputs::check_folder(&out, file).map_err(|reason| wrong(file, reason))?;
    let base = [
        ("cache".to_owned(), all.registry.cache().display().to_string()),
        ("out".to_owned(), out.display().to_string()),
    ];
    // Values of variables may use the built-in ones.
    let built_in = Variables::new(base.iter().cloned().collect(), &all.registry);
    let mut values: std::collections::BTreeMap<String, String> = base.iter().cloned().collect();
    for (name, value) in &all.vars {
        let expanded = built_in.expand(&text_of(value)).map_err(|e| wrong(file, format!("vars.{name}: {e}")))?;
        if values.insert(name.clone(), expanded).is_some() || ["here", "root"].contains(&name.as_str()) {
            return Err(wrong(file, format!("vars.{name}: the variable is built in; choose another name")));
        }
    }
    let mut steps = Vec::new();
    for raw in &all.steps {
        let built = step::build(raw, &values, &all.registry);
        steps.extend(built.map_err(|reason| wrong(&raw.file, reason))?);
    }
    outputs::check(&steps, &out, all.registry.cache()).map_err(|reason| wrong(file, reason))?;
    let waits = graph::waits(&steps).map_err(|reason| wrong(file, reason))?;
    let order = graph::order(&steps, &waits).map_err(|reason| wrong(file, reason))?;
    Ok(Pipeline { about: all.about, file: file.to_owned(), out, steps, waits, order, registry: all.registry })
}

/// Adds a file to what was collected, those that it includes first, and returns the folder that its paths are relative to.
fn collect(file: &Path, read: Read<'_>, stack: &mut Vec<PathBuf>, all: &mut Collected) -> Result<PathBuf> {
    if stack.iter().any(|open| open == file) {
        let names: Vec<String> = stack.iter().map(|f| f.display().to_string()).collect();
        return Err(wrong(file, format!("it includes itself: {} → {}", names.join(" → "), file.display())));
    }
    let text = read(file)?;
    let toml: FileToml = toml::from_str(&text).map_err(|e| wrong(file, e.to_string()))?;
    let here = file.parent().unwrap_or(Path::new(""));
    let root = normalized(&here.join(toml.root.as_deref().unwrap_or("")));
    stack.push(file.to_owned());
    for name in &toml.include {
        let included = normalized(&here.join(name));
        if !all.seen.contains(&included) {
            collect(&included, read, stack, all).map_err(|e| in_include(file, e))?;
        }
    }
    stack.pop();
    if let Some(out) = toml.out {
        if !stack.is_empty() {
            return Err(wrong(
                file,
                "`out` belongs into the pipeline that includes this file; write ${out} for that folder",
            ));
        }
        all.out = Some(out);
    }
    all.about = toml.about;
    let (here_text, root_text) = (here.display().to_string(), root.display().to_string());
    for (name, mut value) in toml.vars {
        if let toml::Value::String(text) = &mut value {
            *text = text.replace("${here}", &here_text).replace("${root}", &root_text);
        }
        all.vars.insert(name, value);
    }
    let mut add = |items, file: &Path| all.registry.add(items).map_err(|e| wrong(file, describe(&e)));
    if let Some(name) = &toml.registry {
        let path = normalized(&here.join(name));
        let items: Items = toml::from_str(&read(&path)?).map_err(|e| wrong(&path, e.to_string()))?;
        add(items, &path)?;
    }
    add(Items { data: toml.data, models: toml.models }, file)?;
    let raw = |table| RawStep { table, file: file.to_owned(), here: here.to_owned(), root: root.clone() };
    all.steps.extend(toml.step.into_iter().map(raw));
    all.seen.push(file.to_owned());
    Ok(root)
}

/// Errors that name their own file stay; others are told where the file is included.
fn in_include(file: &Path, error: Error) -> Error {
    match error {
        Error::Pipeline { .. } => error,
        other => wrong(file, format!("include: {}", describe(&other))),
    }
}

/// Applies one `--set`.
fn set(all: &mut Collected, item: &str) -> Result<(), String> {
    let (key, text) = item.split_once('=').ok_or_else(|| format!("--set {item}: expected KEY=VALUE"))?;
    let value = toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.into()));
    // A name without a dot is a variable; the first part of other keys is a step's name.
    let (first, rest) = match key.split_once('.') {
        Some(("vars", name)) => (name, None),
        Some((step, rest)) => (step, Some(rest)),
        None => (key, None),
    };
    let Some(rest) = rest else {
        if first == "out" && !all.vars.contains_key("out") {
            all.out = Some(text_of(&value));
            return Ok(());
        }
        if !all.vars.contains_key(first) {
            let known: Vec<&str> = all.vars.keys().map(String::as_str).collect();
            return Err(format!(
                "--set {item}: the pipeline has no variable `{first}`; its variables are {}",
                known.join(", ")
            ));
        }
        all.vars.insert(first.to_owned(), value);
        return Ok(());
    };
    let name_of = |step: &RawStep| step.table.get("name").and_then(toml::Value::as_str).map(ToOwned::to_owned);
    let names: Vec<String> = all.steps.iter().filter_map(name_of).collect();
    let step = all.steps.iter_mut().find(|step| name_of(step).as_deref() == Some(first));
    let step = step.ok_or_else(|| {
        format!("--set {item}: the pipeline has no step `{first}`; its steps are {}", names.join(", "))
    })?;
    let (last, folders) = rest.rsplit_once('.').map_or((rest, ""), |(folders, last)| (last, folders));
    let mut table = &mut step.table;
    for part in folders.split('.').filter(|part| !part.is_empty()) {
        let entry = table.entry(part).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry.as_table_mut().ok_or_else(|| format!("--set {item}: `{part}` is not a table"))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}
