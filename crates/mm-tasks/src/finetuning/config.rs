//! Configuration of fine-tuning.

use super::TASK;
use crate::{
    Error, Result,
    batch::texts,
    config::{CommonConfig, TaskConfig},
    ranges::{PositiveInt, Rate},
};
use mm_core::{LoraConfig, Modality, Source};
use mm_data::{Manifest, Split};
use mm_reason::Pipeline;
use mm_repr::ModelPaths;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Configuration of the fine-tuning of a pretrained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FinetuningConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// The checkpoint: a folder, or the name of a downloaded model.
    pub model: PathBuf,
    /// The modality of the inputs.
    #[serde(default = "default_input_modality")]
    pub input_modality: String,
    /// The column with the answers to the questions that are the rows' text; the text is the target itself when absent.
    #[serde(default)]
    pub answer_column: Option<String>,
    /// The language of the target texts, and of transcription; all when absent.
    #[serde(default)]
    pub language: Option<String>,
    /// Low-rank adapters that are trained instead of the weights.
    #[serde(default)]
    pub adapter: Option<LoraConfig>,
    /// The answers of a classifier; when empty, those of the checkpoint, or of the training rows where these have
    /// others.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Label smoothing of the cross entropy.
    #[serde(default)]
    pub label_smoothing: Rate,
    /// Maximum number of tokens of a target or generated text.
    #[serde(default = "default_max_length")]
    pub max_length: PositiveInt,
    /// Beams in evaluation.
    #[serde(default = "default_num_beams")]
    pub num_beams: PositiveInt,
}

fn default_input_modality() -> String {
    "image".into()
}

fn default_max_length() -> PositiveInt {
    PositiveInt::new(30)
}

fn default_num_beams() -> PositiveInt {
    PositiveInt::new(1)
}

/// The modality of the target texts in a data set of [`FinetuningConfig::open_dataset`].
pub(super) fn target_modality() -> Modality {
    Modality::from("answer")
}

impl TaskConfig for FinetuningConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }

    fn validate(&self) -> Result<()> {
        self.adapter.as_ref().map(LoraConfig::check).transpose()?;
        Ok(())
    }
}

impl FinetuningConfig {
    /// The modality of the inputs.
    pub fn modality(&self) -> Modality {
        Modality::from(self.input_modality.as_str())
    }

    /// The rows that can be trained on: input, question as text where there is an answer column, and targets as
    /// [`target_modality`].
    pub(super) fn open_dataset(&self, base_dir: &Path) -> Result<Manifest> {
        let mut manifest = Manifest::open(&self.common.data, base_dir)?;
        let (modality, target) = (self.modality(), target_modality());
        for row in &mut manifest.rows {
            if let Some(language) = &self.language {
                row.retain_languages(&Modality::TEXT, std::slice::from_ref(language));
            }
            row.values.retain(|m, values| (*m == modality || *m == Modality::TEXT) && !values.is_empty());
            let targets = match &self.answer_column {
                Some(column) => {
                    // One question a row: the first, which is also the one that is evaluated.
                    row.values.entry(Modality::TEXT).and_modify(|texts| texts.truncate(1));
                    let cell = row.cells.get(column).map(str::trim).filter(|t| !t.is_empty());
                    cell.map(|t| vec![Source::Text(t.to_owned())])
                }
                None => row.values.remove(&Modality::TEXT),
            };
            row.values.extend(targets.map(|t| (target.clone(), t)));
        }
        let has_questions = self.answer_column.is_some();
        manifest.rows.retain(|r| {
            let has = |m: &Modality| r.values.contains_key(m);
            has(&modality) && has(&target) && (!has_questions || has(&Modality::TEXT))
        });
        if manifest.rows.is_empty() {
            let expected = match &self.answer_column {
                Some(column) => format!("{modality}, a question as text, and an answer in the column `{column}`"),
                None => format!("{modality} and text"),
            };
            return Err(Error::invalid("data", format!("no such row in {}", manifest.path.display()), expected));
        }
        Ok(manifest)
    }

    /// Takes the labels of a classifier from the training rows, most frequent first, where these have others than the
    /// checkpoint.
    pub(super) fn fit_labels(&mut self, base_dir: &Path) -> Result<()> {
        if self.answer_column.is_none() || !self.labels.is_empty() {
            return Ok(());
        }
        let Some(known) = Pipeline::checkpoint_labels(&ModelPaths::locate(&self.model, base_dir)?)? else {
            return Ok(());
        };
        let manifest = self.open_dataset(base_dir)?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for row in manifest.rows_in_split(Split::Train) {
            if let Some(answer) = texts(&manifest, row, &target_modality()).next() {
                *counts.entry(answer.to_owned()).or_default() += 1;
            }
        }
        if counts.keys().all(|answer| known.contains(answer)) {
            return Ok(());
        }
        let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        self.labels = counts.into_iter().map(|(answer, _)| answer).collect();
        Ok(())
    }
}
