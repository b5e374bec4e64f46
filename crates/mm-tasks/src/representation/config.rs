//! Configuration of a representation model.

use super::TASK;
use crate::{
    Error, Result,
    config::{CommonConfig, TaskConfig},
    inputs::complete_encoder,
};
use mm_core::{Modality, Registry};
use mm_data::{Manifest, Split};
use mm_repr::generative::InputConfig;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

/// Configuration of a representation model and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepresentationConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// How the values of each modality become tensors.
    pub inputs: BTreeMap<String, InputConfig>,
    /// Languages of the values that are used, by modality; all where a modality is not named.
    #[serde(default)]
    pub languages: BTreeMap<String, Vec<String>>,
    /// The classes of the labels, in the order of their indices; those of the training rows when absent.
    #[serde(default)]
    pub classes: Option<Vec<String>>,
    /// The model, by its `kind`.
    pub model: toml::Value,
    /// A retrieval run that ranks generated images by the text that they were generated from.
    #[serde(default)]
    pub evaluator_run: Option<PathBuf>,
}

impl TaskConfig for RepresentationConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }

    fn validate(&self) -> Result<()> {
        if self.inputs.is_empty() {
            return Err(Error::invalid("inputs", "none", "at least one modality"));
        }
        Ok(())
    }
}

impl RepresentationConfig {
    /// Fits the inputs (vocabularies, character sets) and the classes on the training rows, unless they are known.
    pub(super) fn fit_inputs(&mut self, base_dir: &Path) -> Result<()> {
        if self.classes.is_some() {
            return Ok(());
        }
        let manifest = self.open_dataset(base_dir)?;
        let train = manifest.rows_in_split(Split::Train);
        for (name, input) in &mut self.inputs {
            let modality = Modality::from(name.as_str());
            input.fit(train.iter().flat_map(|r| manifest.rows[*r].values.get(&modality).into_iter().flatten()))?;
        }
        let mut seen = HashSet::new();
        let labels = train.iter().filter_map(|r| manifest.rows[*r].label.as_ref());
        self.classes = Some(labels.filter(|label| seen.insert(*label)).cloned().collect());
        Ok(())
    }

    /// Adds what the encoders of inputs derive from their training values, where the config leaves it out.
    pub(super) fn complete_encoders(&mut self, base_dir: &Path, encoders: &Registry) -> Result<()> {
        let is_incomplete =
            |input: &InputConfig| matches!(input, InputConfig::Features { encoder } if encoders.is_incomplete(encoder));
        if !self.inputs.values().any(is_incomplete) {
            return Ok(());
        }
        let manifest = self.open_dataset(base_dir)?;
        for (name, input) in &mut self.inputs {
            if let InputConfig::Features { encoder } = input {
                complete_encoder(encoder, &Modality::from(name.as_str()), &manifest, encoders)?;
            }
        }
        Ok(())
    }

    /// The data set, without values of other modalities and languages and without empty rows.
    pub(super) fn open_dataset(&self, base_dir: &Path) -> Result<Manifest> {
        let mut manifest = Manifest::open(&self.common.data, base_dir)?;
        for row in &mut manifest.rows {
            row.values.retain(|modality, _| self.inputs.contains_key(modality.name()));
            for (name, languages) in &self.languages {
                row.retain_languages(&Modality::from(name.as_str()), languages);
            }
            row.values.retain(|_, values| !values.is_empty());
        }
        for name in self.inputs.keys() {
            let modality = Modality::from(name.as_str());
            if !manifest.rows_in_split(Split::Train).iter().any(|r| manifest.rows[*r].values.contains_key(&modality)) {
                let found = format!("no training row with {name} in {}", manifest.path.display());
                return Err(Error::invalid(format!("inputs.{name}"), found, "at least one"));
            }
        }
        manifest.rows.retain(|r| !r.values.is_empty());
        Ok(manifest)
    }
}
