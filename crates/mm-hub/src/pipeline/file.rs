//! The file of a pipeline, and those that it includes.

use super::{
    Pipeline,
    expand::{Values, Variables, text_of},
    graph, outputs,
    step::{self, BUILT_IN, RawStep},
    wrong,
};
use crate::{
    error::{Error, Result, describe},
    paths::normalized,
    registry::{Item, Items, Registry},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

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

/// A variable as a file or `--set` has it.
struct RawVariable {
    value: toml::Value,
    file: PathBuf,
    /// The folder that the paths of the file are relative to.
    root: PathBuf,
}

/// What the files of a pipeline say together.
struct Collected {
    about: String,
    out: Option<String>,
    vars: BTreeMap<String, RawVariable>,
    steps: Vec<RawStep>,
    registry: Registry,
    /// The files that were read, those of registries included.
    seen: Vec<PathBuf>,
}

/// Parses a pipeline and what it includes, applies overrides (`--set`), puts variables in and checks everything that can be
/// checked before a step runs. `file` is an absolute path, `read` returns the text of a file.
pub fn parse(file: &Path, overrides: &[&str], registry: Registry, read: Read<'_>) -> Result<Pipeline> {
    if file.to_str().is_none() {
        return Err(wrong(file, "its path is not UTF-8 and cannot be put into commands; move it to another folder"));
    }
    let (about, vars) = (String::new(), BTreeMap::new());
    let mut all = Collected { about, out: None, vars, steps: Vec::new(), registry, seen: Vec::new() };
    let root = collect(file, read, &mut Vec::new(), &mut all)?;
    if all.about.is_empty() {
        return Err(wrong(file, "no `about`; expected a description of the pipeline in one line"));
    }
    for item in overrides {
        set(&mut all, item, file, &root).map_err(|reason| wrong(file, reason))?;
    }
    let out = normalized(&root.join(all.out.as_deref().unwrap_or("runs")));
    outputs::check_folder(&out, file).map_err(|reason| wrong(file, reason))?;
    let values = values(&all, &out)?;
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

/// The values of all variables; those of the files may use the built-in ones.
fn values(all: &Collected, out: &Path) -> Result<Values> {
    let text = |path: &Path| path.display().to_string().into();
    let mut base = Values::from([("cache".into(), text(all.registry.cache())), ("out".into(), text(out))]);
    let mut values = base.clone();
    for (name, RawVariable { value, file, root }) in &all.vars {
        if BUILT_IN.contains(&name.as_str()) {
            return Err(wrong(file, format!("vars.{name}: the variable is built in; choose another name")));
        }
        base.insert("here".into(), text(file.parent().unwrap_or(Path::new(""))));
        base.insert("root".into(), text(root));
        let value = Variables::new(base.clone(), &all.registry).value(&text_of(value));
        values.insert(name.clone(), value.map_err(|e| wrong(file, format!("vars.{name}: {e}")))?);
    }
    Ok(values)
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
    for (name, value) in toml.vars {
        all.vars.insert(name, RawVariable { value, file: file.to_owned(), root: root.clone() });
    }
    let mut add = |items, file: &Path| all.registry.add(items).map_err(|e| wrong(file, describe(&e)));
    // Two files may name one registry.
    let registry = toml.registry.as_ref().map(|name| normalized(&here.join(name)));
    if let Some(path) = registry.filter(|path| !all.seen.contains(path)) {
        let items: Items = toml::from_str(&read(&path)?).map_err(|e| wrong(&path, e.to_string()))?;
        add(items, &path)?;
        all.seen.push(path);
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

/// The value that a `--set` has as text: lists, quoted strings, `true` and `false` are those of TOML, anything else stays as
/// it is written (`1.10` is not the number 1.1).
fn set_value(text: &str) -> toml::Value {
    let parsed = toml::from_str::<toml::Table>(&format!("v = {text}"));
    match parsed.ok().filter(|table| table.len() == 1).and_then(|mut table| table.remove("v")) {
        Some(toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Datetime(_)) => {
            toml::Value::String(text.trim().into())
        }
        Some(value) => value,
        None => toml::Value::String(text.into()),
    }
}

/// Applies one `--set`; the paths in it are those of the main file.
fn set(all: &mut Collected, item: &str, file: &Path, root: &Path) -> Result<(), String> {
    let (key, text) = item.split_once('=').ok_or_else(|| format!("--set {item}: expected KEY=VALUE"))?;
    let value = set_value(text);
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
            let known =
                if known.is_empty() { "it has none".into() } else { format!("its variables are {}", known.join(", ")) };
            return Err(format!("--set {item}: the pipeline has no variable `{first}`; {known}"));
        }
        all.vars.insert(first.to_owned(), RawVariable { value, file: file.to_owned(), root: root.to_owned() });
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
