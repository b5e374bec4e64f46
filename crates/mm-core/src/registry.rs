//! Names → builders, so that any crate's encoder is usable in every pipeline file without editing this one.

use crate::{Encoder, Error, Modality, Processor, Result, Scope, Source};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// What a builder may need beside its own settings.
pub struct BuildContext<'a> {
    /// Where its parameters go.
    pub scope: Scope<'a>,
    /// The folder that relative paths in the settings are relative to.
    pub base_dir: PathBuf,
    /// Dotted path of the settings in the file, for errors.
    pub field: String,
    /// The registry that builds the encoder, for encoders made of others.
    pub registry: &'a Registry,
}

/// A modality's two halves: raw value → numbers, and numbers → features.
pub struct BuiltEncoder {
    /// Runs in worker threads.
    pub processor: Arc<dyn Processor>,
    /// Runs on the device.
    pub encoder: Box<dyn Encoder>,
    /// Whether its weights are never trained (its features can then be kept on disk).
    pub frozen: bool,
    /// A text that changes whenever the features would, for frozen encoders.
    pub fingerprint: String,
}

/// How a modality's training values are read when nobody says: settings of an encoder, resolved (vocabularies, means), and words for a
/// person about why.
#[derive(Debug, Clone)]
pub struct Proposal {
    /// Settings with their `kind`.
    pub encoder: toml::Value,
    /// Whether the features are brought to mean zero and variance one before they are used.
    pub standardize: bool,
    /// What was chosen, for a person.
    pub description: String,
}

type Proposer = Box<dyn Fn(&[&Source]) -> Result<Vec<Proposal>> + Send + Sync>;

type Completer = (String, Box<dyn Fn(&[&Source]) -> Result<toml::Value> + Send + Sync>);

type Builder = Box<dyn Fn(&toml::Value, &BuildContext<'_>) -> Result<BuiltEncoder> + Send + Sync>;

/// Encoders by the `kind` that a config names.
#[derive(Default)]
pub struct Registry {
    encoders: BTreeMap<String, Builder>,
    proposers: BTreeMap<String, Proposer>,
    completers: BTreeMap<String, Completer>,
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds (or replaces) an encoder under a name.
    pub fn register_encoder(
        &mut self,
        name: &str,
        build: impl Fn(&toml::Value, &BuildContext<'_>) -> Result<BuiltEncoder> + Send + Sync + 'static,
    ) -> &mut Self {
        self.encoders.insert(name.to_owned(), Box::new(build));
        self
    }

    /// Adds (or replaces) what chooses encoders for a modality from its training values, where a config names none (`mm fit`): the one that
    /// is likeliest to serve first.
    pub fn register_proposer(
        &mut self,
        modality: &str,
        propose: impl Fn(&[&Source]) -> Result<Vec<Proposal>> + Send + Sync + 'static,
    ) -> &mut Self {
        self.proposers.insert(modality.to_owned(), Box::new(propose));
        self
    }

    /// Adds (or replaces) what takes a setting of an encoder from the training values where a config leaves it out (a vocabulary).
    pub fn register_completer(
        &mut self,
        kind: &str,
        setting: &str,
        complete: impl Fn(&[&Source]) -> Result<toml::Value> + Send + Sync + 'static,
    ) -> &mut Self {
        self.completers.insert(kind.to_owned(), (setting.to_owned(), Box::new(complete)));
        self
    }

    /// Whether settings leave something out that the training values tell.
    pub fn is_open(&self, settings: &toml::Value) -> bool {
        let kind = settings.get("kind").and_then(toml::Value::as_str).unwrap_or_default();
        self.completers.get(kind).is_some_and(|(setting, _)| settings.get(setting).is_none())
    }

    /// Puts into settings what they leave out, from the training values.
    pub fn complete(&self, settings: &mut toml::Value, values: &[&Source]) -> Result<()> {
        let kind = settings.get("kind").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
        if let (true, Some((setting, complete))) = (self.is_open(settings), self.completers.get(&kind)) {
            let value = complete(values)?;
            if let Some(table) = settings.as_table_mut() {
                table.insert(setting.clone(), value);
            }
        }
        Ok(())
    }

    /// Chooses encoders for a modality from its training values; at least one, the likeliest to serve first.
    pub fn propose(&self, modality: &Modality, values: &[&Source]) -> Result<Vec<Proposal>> {
        let known = self.proposers.keys().map(String::as_str);
        let propose = self
            .proposers
            .get(modality.name())
            .ok_or_else(|| Error::unknown("modality that an encoder can be chosen for", modality.name(), known))?;
        let found = propose(values)?;
        if found.is_empty() {
            return Err(Error::Sample(format!("no encoder of {modality} suits these values")));
        }
        Ok(found)
    }

    /// The modalities that an encoder can be chosen for.
    pub fn proposes(&self) -> impl Iterator<Item = &str> {
        self.proposers.keys().map(String::as_str)
    }

    /// The names that can be built.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.encoders.keys().map(String::as_str)
    }

    /// Builds what `settings.kind` names, from the rest of `settings`.
    pub fn build(&self, settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
        let mut settings = settings.clone();
        let kind = settings
            .as_table_mut()
            .and_then(|t| t.remove("kind"))
            .and_then(|k| k.as_str().map(ToOwned::to_owned))
            .ok_or_else(|| Error::config(format!("{}.kind", context.field), "nothing", "the name of an encoder"))?;
        let build = self.encoders.get(&kind).ok_or_else(|| Error::unknown("encoder kind", &kind, self.names()))?;
        build(&settings, context)
    }
}
