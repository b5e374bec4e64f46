//! Completing a config from its training data: problem, classes and encoders.

use super::{
    config::{InputConfig, PredictionConfig},
    dataset::open_dataset,
    target::{Problem, Target, count_labels},
};
use crate::{
    Error, Result,
    config::{parse_task, to_value},
};
use mm_core::{Modality, Registry, Source};
use mm_data::{Manifest, Split};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// Classes that are listed in a log message.
const MAX_LISTED_CLASSES: usize = 8;

/// Another encoder that is proposed for a modality.
#[derive(Debug, Clone)]
pub(super) struct AlternativeEncoder {
    /// The settings.
    pub(super) encoder: toml::Value,
    /// Whether its features are standardized.
    pub(super) standardize: bool,
}

/// Completes a config from its training rows: the problem, the classes, and encoders that it does not name. `log` gets
/// one line for each decision.
///
/// # Errors
/// When the data cannot be read, labels do not fit the problem, or no training row has a modality.
pub fn resolve(
    value: &mut toml::Value,
    base_dir: &Path,
    registry: &Registry,
    log: &mut dyn FnMut(String),
) -> Result<()> {
    resolve_with_alternatives(value, base_dir, registry, log).map(drop)
}

/// Like [`resolve`]; returns the second-best proposal of each modality whose encoder was proposed.
pub(super) fn resolve_with_alternatives(
    value: &mut toml::Value,
    base_dir: &Path,
    registry: &Registry,
    log: &mut dyn FnMut(String),
) -> Result<BTreeMap<String, AlternativeEncoder>> {
    let mut config: PredictionConfig = parse_task(value)?;
    let mut alternatives = BTreeMap::new();
    let is_open = config.problem == Problem::Auto
        || (config.classes.is_empty() && config.problem != Problem::Regression)
        || config.inputs.values().any(|i| i.encoder.as_ref().is_none_or(|e| registry.is_incomplete(e)));
    if !is_open {
        return Ok(alternatives);
    }
    let manifest = open_dataset(&config, &config.common.base_dir_or(base_dir))?;
    resolve_target(&mut config, &manifest, log)?;
    let train = manifest.rows_in_split(Split::Train);
    for (name, input) in &mut config.inputs {
        if input.encoder.as_ref().is_some_and(|e| !registry.is_incomplete(e)) {
            continue;
        }
        let modality = Modality::from(name.as_str());
        let values: Vec<&Source> =
            train.iter().filter_map(|r| manifest.rows[*r].values.get(&modality)?.first()).collect();
        if values.is_empty() {
            let found = format!("no training row with {modality} in {}", manifest.path.display());
            return Err(
                Error::invalid(format!("inputs.{name}"), found, "at least one").with_hint("leave the input out")
            );
        }
        let alternative = resolve_encoder(name, input, &modality, &values, registry, log)?;
        alternatives.extend(alternative.map(|a| (name.clone(), a)));
    }
    *value = to_value(&config)?;
    Ok(alternatives)
}

fn resolve_encoder(
    name: &str,
    input: &mut InputConfig,
    modality: &Modality,
    values: &[&Source],
    registry: &Registry,
    log: &mut dyn FnMut(String),
) -> Result<Option<AlternativeEncoder>> {
    if let Some(encoder) = &mut input.encoder {
        registry.complete(encoder, values)?;
        return Ok(None);
    }
    let mut proposals = registry.propose(modality, values)?.into_iter();
    let Some(proposal) = proposals.next() else { return Ok(None) };
    log(format!("{name}: {}", proposal.description));
    input.encoder = Some(proposal.encoder);
    input.standardize = Some(input.standardize.unwrap_or(proposal.standardize));
    Ok(proposals.next().map(|p| AlternativeEncoder { encoder: p.encoder, standardize: p.standardize }))
}

/// Sets problem and classes from the labels of training and validation rows; test rows are not used.
fn resolve_target(config: &mut PredictionConfig, manifest: &Manifest, log: &mut dyn FnMut(String)) -> Result<()> {
    let (train, valid) = (manifest.rows_in_split(Split::Train), manifest.rows_in_split(Split::Valid));
    let label = |row: &usize| {
        let row = &manifest.rows[*row];
        Some((row.number, row.cells.get(&config.label)?))
    };
    let labels: Vec<(usize, &str)> = train.iter().chain(&valid).filter_map(label).collect();
    let unlabeled = train.len() + valid.len() - labels.len();
    if unlabeled > 0 && !labels.is_empty() {
        let total = train.len() + valid.len();
        log(format!("{unlabeled} of {total} rows have no `{}`; nothing is learned from them", config.label));
    }
    let columns = || manifest.rows.iter().flat_map(|r| r.cells.texts().map(|(column, _)| column));
    if labels.is_empty() && !columns().any(|c| c == config.label) {
        let known: BTreeSet<&str> = columns().collect();
        return Err(Error::unknown_column(&manifest.path, "label column", &config.label, known));
    }
    if config.classes.is_empty() {
        let (target, reason) = Target::infer(&config.label, config.problem, &labels)?;
        let classes = match target.classes.len() {
            0 => String::new(),
            n if n <= MAX_LISTED_CLASSES => format!(" of {}", target.classes.join(", ")),
            n => format!(" of {n} classes"),
        };
        log(format!("{}: {}{classes} ({reason})", config.label, target.problem.name()));
        if target.is_classes() {
            log_unusual_classes(&config.label, &labels, log);
        }
        config.problem = target.problem;
        config.classes = target.classes;
    } else if config.problem == Problem::Auto {
        config.problem = if config.classes.len() == 2 { Problem::Binary } else { Problem::Multiclass };
    }
    Ok(())
}

/// Logs a mix of numbers and text, and classes with one row.
fn log_unusual_classes(column: &str, labels: &[(usize, &str)], log: &mut dyn FnMut(String)) {
    let counts = count_labels(labels.iter().map(|(_, l)| *l));
    let numbers = counts.keys().filter(|l| l.parse::<f64>().is_ok()).count();
    if (1..counts.len()).contains(&numbers) {
        let texts = counts.len() - numbers;
        log(format!("`{column}` has {numbers} different numbers and {texts} different texts; each is used as a class"));
    }
    let rare: Vec<&str> = counts.iter().filter(|(_, c)| **c == 1).map(|(l, _)| *l).collect();
    if !rare.is_empty() {
        let shown = rare.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        log(format!("{} classes have one row to learn from: {shown}", rare.len()));
    }
}
