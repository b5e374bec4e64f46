//! The file of a pipeline.

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// A description of one line.
    pub about: String,
    /// Variables, used as `${name}` in steps. `${cache}` and `${here}` (the pipeline's folder) are always defined.
    #[serde(default)]
    pub vars: BTreeMap<String, toml::Value>,
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    /// A data set to fetch.
    #[serde(default)]
    pub fetch: Option<String>,
    /// Weights to pull.
    #[serde(default)]
    pub pull: Option<String>,
    /// Arguments of `mm`.
    #[serde(default)]
    pub mm: Option<Vec<String>>,
    /// Another program with its arguments.
    #[serde(default)]
    pub run: Option<Vec<String>>,
    /// Files and folders that it reads.
    #[serde(default)]
    pub inputs: Vec<String>,
    /// Files and folders that it writes.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Whether outputs that an earlier run of this pipeline made are deleted first (for a run folder, which must be new).
    #[serde(default)]
    pub fresh: bool,
}

impl Step {
    /// All strings in which variables are expanded.
    fn strings(&mut self) -> impl Iterator<Item = &mut String> {
        let lists = self.mm.iter_mut().chain(self.run.iter_mut()).flatten();
        lists.chain(&mut self.inputs).chain(&mut self.outputs).chain(&mut self.fetch).chain(&mut self.pull)
    }
}

/// Parses a pipeline, applies overrides (`--set`), checks it, and expands the variables, its own and the `built_in` ones.
pub fn parse(text: &str, overrides: &[&str], built_in: &[(&str, String)]) -> Result<Pipeline> {
    let mut value: toml::Table = toml::from_str(text).context("not valid TOML")?;
    for item in overrides {
        set(&mut value, item)?;
    }
    let mut pipeline: Pipeline = value.try_into().context("not a pipeline")?;
    let own =
        pipeline.vars.iter().map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), ToOwned::to_owned)));
    let built_in = built_in.iter().map(|(k, v)| ((*k).to_owned(), v.clone()));
    let vars: BTreeMap<String, String> = own.chain(built_in).collect();
    let names: Vec<String> = pipeline.steps.iter().map(|s| s.name.clone()).collect();
    for (index, step) in pipeline.steps.iter_mut().enumerate() {
        let name = step.name.clone();
        if names[..index].contains(&name) {
            bail!("two steps are named `{name}`");
        }
        for text in step.strings() {
            *text = expand(text, &vars).with_context(|| format!("step `{name}`"))?;
        }
        let actions = [step.fetch.is_some(), step.pull.is_some(), step.mm.is_some(), step.run.is_some()];
        if actions.iter().filter(|a| **a).count() != 1 {
            bail!("step `{name}` must have exactly one of fetch, pull, mm, run");
        }
    }
    Ok(pipeline)
}

/// Applies one `--set` to the pipeline's TOML.
fn set(table: &mut toml::Table, item: &str) -> Result<()> {
    let (key, text) = item.split_once('=').with_context(|| format!("--set {item}: expected KEY=VALUE"))?;
    let value = toml::from_str::<toml::Table>(&format!("v = {text}"))
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.into()));
    let parts: Vec<&str> = key.split('.').collect();
    // A name without a dot is a variable; the first part of other keys is a step's name.
    let (first, rest) = parts.split_first().context("--set: an empty key")?;
    if rest.is_empty() || *first == "vars" {
        let name = rest.first().unwrap_or(first);
        let vars = table
            .entry("vars")
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .context("vars is not a table")?;
        if !vars.contains_key(*name) {
            bail!(
                "--set {item}: the pipeline has no variable `{name}`; its variables are {}",
                vars.keys().cloned().collect::<Vec<_>>().join(", ")
            );
        }
        vars.insert((*name).to_owned(), value);
        return Ok(());
    }
    let steps = table.get_mut("step").and_then(toml::Value::as_array_mut).context("the pipeline has no steps")?;
    let step = steps
        .iter_mut()
        .filter_map(toml::Value::as_table_mut)
        .find(|s| s.get("name").and_then(toml::Value::as_str) == Some(first));
    step.with_context(|| format!("--set {item}: the pipeline has no step `{first}`"))?.insert(rest.join("."), value);
    Ok(())
}

/// Replaces `${name}` by the variable.
fn expand(text: &str, vars: &BTreeMap<String, String>) -> Result<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, tail) = after.split_once('}').with_context(|| format!("`{text}`: a ${{ without its }}"))?;
        let value = vars.get(name).with_context(|| {
            format!(
                "`{text}`: no variable `{name}`; the variables are {}",
                vars.keys().cloned().collect::<Vec<_>>().join(", ")
            )
        })?;
        out += before;
        out += value;
        rest = tail;
    }
    Ok(out + rest)
}
