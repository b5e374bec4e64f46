//! A trained predictor: one model or an ensemble of several, each with an ensemble of its heads.

mod ensemble;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(not(feature = "parquet"))]
#[path = "parquet_disabled.rs"]
mod parquet;
mod predict;
mod text;
mod write;

pub(super) use ensemble::{ENSEMBLE_FILE, member_dir};
pub use predict::{RowPrediction, ValuePrediction};
pub use write::write_predictions;

use super::{
    dataset::{question_of, read_rows},
    evaluation::{Evaluation, measure},
    head_ensemble::HeadEnsemble,
    inference::{InferenceOptions, RowOutputs},
    model::Prediction,
    network::Saliency,
    target::Target,
};
use crate::{Error, Result, metrics};
use ensemble::EnsembleFile;
use mm_core::{Device, Modality, Registry, Source, Tensor};
use mm_data::{Cells, FailedSample, Manifest, Split, TableOptions};
use std::{collections::BTreeMap, path::Path};

/// A trained predictor.
pub struct Predictor {
    members: Vec<Member>,
    /// The weight of each member; they sum to 1.
    weights: Vec<f64>,
}

/// One model of a predictor.
struct Member {
    model: Prediction,
    heads: HeadEnsemble,
}

/// Predictions of a predictor for some rows.
pub(super) struct Predictions {
    /// The rows, by index in [`Manifest::rows`].
    pub(super) rows: Vec<usize>,
    /// Float64 `[rows, classes]`, or `[rows, 1]` values of a regression.
    pub(super) values: Tensor,
    /// The modalities of each row.
    pub(super) present: Vec<Vec<Modality>>,
    /// The weight of each modality in each row, where the fusion operator of the first member reports it.
    modality_weights: BTreeMap<Modality, Vec<f64>>,
    /// Values that could not be read.
    failed: Vec<FailedSample>,
    /// The outputs of the fused head of the first member, `[rows, outputs]`.
    fused: Tensor,
    /// The saliency of the first member; empty unless requested.
    saliency: Vec<Saliency>,
}

impl Predictor {
    /// Whether a folder is a run folder, or an ensemble of such.
    pub fn is_run(folder: &Path) -> bool {
        folder.join("config.toml").exists() || folder.join(ENSEMBLE_FILE).exists()
    }

    /// Opens a run folder of `mm train` or `mm fit`, to predict rows that it was not trained on.
    ///
    /// # Errors
    /// When the folder is not a prediction run.
    pub fn open(run: &Path, registry: &Registry, device: Device) -> Result<Self> {
        Self::open_for_split(run, Split::Test, registry, device)
    }

    /// Opens a run folder to predict rows of a split of its own data set: outside the test split with the members that
    /// were not refit on all rows.
    ///
    /// # Errors
    /// When the folder is not a prediction run.
    pub fn open_for_split(run: &Path, split: Split, registry: &Registry, device: Device) -> Result<Self> {
        let (dirs, weights) = match EnsembleFile::read(run)? {
            Some(file) => file.members_for(run, split),
            None => (vec![run.to_owned()], vec![1.0]),
        };
        let open = |dir: &std::path::PathBuf| -> Result<Member> {
            Ok(Member { model: Prediction::load(dir, registry, device)?, heads: HeadEnsemble::load(dir)? })
        };
        Ok(Self { members: dirs.iter().map(open).collect::<Result<_>>()?, weights })
    }

    /// The first member.
    pub(super) fn first(&self) -> &Prediction {
        &self.members[0].model
    }

    /// What it predicts.
    pub fn target(&self) -> &Target {
        self.first().target()
    }

    /// The column that it predicts.
    pub fn label_column(&self) -> &str {
        &self.first().config.label
    }

    /// Whether the prediction of a row depends on the other rows of its item.
    pub fn groups_items(&self) -> bool {
        self.members.iter().any(|member| member.model.network.groups_items())
    }

    /// Whether it answers questions, with a reasoning network.
    pub fn answers_questions(&self) -> bool {
        self.first().config.reasoning.is_some()
    }

    /// Whether each step of its reasoning network is one token of the question, as in a program.
    pub fn has_program_steps(&self) -> bool {
        let reasoning = self.first().config.reasoning.as_ref();
        reasoning.is_some_and(|r| r.network.one_step_per_token().unwrap_or(false))
    }

    /// The modalities.
    pub fn modalities(&self) -> Vec<Modality> {
        self.first().modalities().cloned().collect()
    }

    /// Modalities by their names, to be excluded.
    ///
    /// # Errors
    /// When it does not have one of them; the nearest is suggested.
    pub fn find_modalities(&self, names: &[String]) -> Result<Vec<Modality>> {
        let known = self.modalities();
        let find = |name: &String| {
            let names = known.iter().map(Modality::name);
            let found = known.iter().find(|m| m.name() == name).cloned();
            Ok(found.ok_or_else(|| mm_core::Error::unknown("modality of this run", name, names))?)
        };
        names.iter().map(find).collect()
    }

    /// Another table, with the columns of the training table but those of the modalities in `exclude`. What `options`
    /// leave open is as in training, but that URLs are fetched only where they say so.
    ///
    /// # Errors
    /// When it cannot be read or lacks one of the columns.
    pub fn open_table(&self, path: &Path, exclude: &[Modality], options: &TableOptions<'_>) -> Result<Manifest> {
        self.first().open_table(path, Path::new("."), exclude, options)
    }

    /// Rows in memory, with the columns of the training table but those of the modalities in `exclude`; cells may be
    /// null. `file` gives the source of each text that would name a file: no path in a row is opened.
    ///
    /// # Errors
    /// When they lack one of the columns, or an id occurs twice.
    pub fn read_rows(
        &self,
        rows: Vec<Cells>,
        exclude: &[Modality],
        file: &dyn Fn(&Modality, &str) -> Source,
    ) -> Result<Manifest> {
        read_rows(&self.first().config, rows, exclude, file)
    }

    /// The data set that it was trained on.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn dataset(&self) -> Result<Manifest> {
        self.first().dataset()
    }

    /// The weighted mean of the members' predictions.
    pub(super) fn combine(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        options: InferenceOptions<'_>,
    ) -> Result<Predictions> {
        let mut combined: Option<Predictions> = None;
        for (member, weight) in self.members.iter().zip(&self.weights) {
            let found = member.predict(manifest, rows, options)?;
            let values = found.values.mul_scalar(*weight)?;
            match &mut combined {
                Some(combined) => combined.values = combined.values.add(&values)?,
                None => combined = Some(Predictions { values, ..found }),
            }
        }
        combined.ok_or_else(|| Error::invalid("members", "none", "at least one trained model"))
    }

    /// Mean weight of each modality over the rows that have it, where the fusion operator of the first member reports
    /// it.
    ///
    /// # Errors
    /// When the rows cannot be predicted.
    pub fn modality_weights(&self, manifest: &Manifest, rows: &[usize]) -> Result<BTreeMap<Modality, f64>> {
        let found = self.combine(manifest, rows, InferenceOptions::default())?;
        let mut out = BTreeMap::new();
        for (modality, weights) in found.modality_weights {
            let rows = weights.iter().zip(&found.present);
            let own: Vec<f64> = rows.filter(|(_, p)| p.contains(&modality)).map(|(w, _)| *w).collect();
            if !own.is_empty() && weights.len() == found.present.len() {
                out.insert(modality, own.iter().sum::<f64>() / own.len() as f64);
            }
        }
        Ok(out)
    }

    /// Evaluates rows that have labels, without the modalities in `exclude`.
    ///
    /// # Errors
    /// When no row has a label.
    pub fn evaluate(&self, manifest: &Manifest, rows: &[usize], exclude: &[Modality]) -> Result<Evaluation> {
        self.evaluate_with(manifest, rows, InferenceOptions { exclude, ..InferenceOptions::default() })
    }

    /// Like [`Predictor::evaluate`], with options.
    pub(super) fn evaluate_with(
        &self,
        manifest: &Manifest,
        rows: &[usize],
        options: InferenceOptions<'_>,
    ) -> Result<Evaluation> {
        let found = self.combine(manifest, rows, options)?;
        let config = &self.first().config;
        let mut evaluation = measure(config, self.target(), manifest, &found.rows, &found.values)?;
        let classes = &self.target().classes;
        if !classes.is_empty() {
            // Answers of several people, in rows that have them.
            let best: Vec<i64> = found.values.argmax(1)?.to_vec()?;
            let answer = |(class, row): (&i64, &usize)| {
                let cells = &manifest.rows[*row].cells;
                metrics::AnsweredRow {
                    predicted: classes.get(*class as usize).map_or("", String::as_str),
                    label: cells.get(&config.label),
                    question: question_of(manifest, *row).filter(|_| self.answers_questions()),
                    cells,
                }
            };
            evaluation.metrics.extend(metrics::answer_metrics(best.iter().zip(&found.rows).map(answer)));
        }
        evaluation.failed = found.failed;
        Ok(evaluation)
    }
}

impl Member {
    /// The predictions of this model.
    fn predict(&self, manifest: &Manifest, rows: &[usize], options: InferenceOptions<'_>) -> Result<Predictions> {
        let model = &self.model;
        // Its own data set is in the cache, and is predicted several times, without each modality.
        let is_own = manifest.path == model.base_dir.join(&model.config.common.data.manifest);
        let outputs = if is_own {
            model.predict_cached(manifest, rows, options)?
        } else {
            model.predict_rows(manifest, rows, &model.uncached_inputs(), options)?
        };
        let values = self.heads.predict(model, &outputs)?;
        let RowOutputs { rows, fused, present, modality_weights, failed, saliency, .. } = outputs;
        Ok(Predictions { rows, values, present, modality_weights, failed, fused, saliency })
    }
}
