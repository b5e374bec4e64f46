//! Configuration of a captioning model.

use super::TASK;
use crate::{
    Error, Result,
    batch::texts,
    config::{CommonConfig, TaskConfig},
    metrics::caption_tokens,
    ranges::{Fraction, PositiveInt, Rate},
};
use mm_core::Modality;
use mm_data::{Manifest, Split};
use mm_reason::captioner::CaptionerConfig;
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Configuration of a captioning model and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaptioningConfig {
    /// The keys that all tasks share.
    #[serde(skip)]
    pub common: CommonConfig,
    /// The modality that is described.
    #[serde(default = "default_input_modality")]
    pub input_modality: String,
    /// The language of the captions; all when absent.
    #[serde(default)]
    pub language: Option<String>,
    /// The encoder, by its `kind`; the captioner attends to all of its positions.
    pub encoder: toml::Value,
    /// The words of captions; those of the training captions that occur at least twice when empty.
    #[serde(default)]
    pub vocabulary: Vec<String>,
    /// The caption decoder.
    #[serde(default)]
    pub model: CaptionerConfig,
    /// Label smoothing of the cross entropy.
    #[serde(default)]
    pub label_smoothing: Rate,
    /// Probability that an input word is replaced by the model's own prediction, in two passes.
    ///
    /// From *Scheduled Sampling for Sequence Prediction with Recurrent Neural Networks* (Bengio et al., 2015,
    /// <https://arxiv.org/abs/1506.03099>) and *Scheduled Sampling for Transformers* (Mihaylova and Martins, 2019,
    /// <https://arxiv.org/abs/1906.07651>).
    #[serde(default)]
    pub scheduled_sampling: Fraction,
    /// Weight of self-critical training: sampled captions become more likely by the margin of their CIDEr-D over the
    /// greedy caption's. Needs a trained model: `init_from`.
    ///
    /// From *Self-critical Sequence Training for Image Captioning* (Rennie et al., 2017,
    /// <https://arxiv.org/abs/1612.00563>).
    #[serde(default)]
    pub self_critical_weight: Fraction,
    /// A run of the same model whose weights training starts from.
    #[serde(default)]
    pub init_from: Option<PathBuf>,
    /// Beams in evaluation and in `mm caption`.
    #[serde(default = "default_num_beams")]
    pub num_beams: PositiveInt,
}

fn default_input_modality() -> String {
    "image".into()
}

fn default_num_beams() -> PositiveInt {
    PositiveInt::new(3)
}

impl TaskConfig for CaptioningConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }
}

impl CaptioningConfig {
    /// The modality that is described.
    pub fn modality(&self) -> Modality {
        Modality::from(self.input_modality.as_str())
    }

    /// The rows of the data set with a value to describe and a caption.
    pub(super) fn open_dataset(&self, base_dir: &Path) -> Result<Manifest> {
        let mut manifest = Manifest::open(&self.common.data, base_dir)?;
        let modality = self.modality();
        for row in &mut manifest.rows {
            if let Some(language) = &self.language {
                row.retain_languages(&Modality::TEXT, std::slice::from_ref(language));
            }
            row.values.retain(|m, values| (*m == modality || *m == Modality::TEXT) && !values.is_empty());
        }
        manifest.rows.retain(|r| r.values.contains_key(&modality) && r.values.contains_key(&Modality::TEXT));
        if manifest.rows.is_empty() {
            let found = format!("no row with both {modality} and text in {}", manifest.path.display());
            return Err(Error::invalid("data", found, "at least one"));
        }
        Ok(manifest)
    }

    /// Takes the vocabulary from the training captions, most frequent words first, unless it is known.
    pub(super) fn fit_vocabulary(&mut self, base_dir: &Path) -> Result<()> {
        if !self.vocabulary.is_empty() {
            return Ok(());
        }
        let manifest = self.open_dataset(base_dir)?;
        let mut counts: HashMap<String, usize> = HashMap::new();
        for row in manifest.rows_in_split(Split::Train) {
            for text in texts(&manifest, row, &Modality::TEXT) {
                caption_tokens(text).into_iter().for_each(|w| *counts.entry(w).or_default() += 1);
            }
        }
        let mut counts: Vec<(String, usize)> = counts.into_iter().filter(|(_, n)| *n > 1).collect();
        if counts.is_empty() {
            let found = format!("no word that occurs twice in the training captions of {}", manifest.path.display());
            return Err(Error::invalid("vocabulary", found, "some")
                .with_hint("data.columns.modalities.text names the column of the captions"));
        }
        counts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        self.vocabulary = counts.into_iter().map(|(word, _)| word).collect();
        Ok(())
    }
}
