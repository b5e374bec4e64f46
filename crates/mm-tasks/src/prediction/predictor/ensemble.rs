//! Ensembles of several models: their file in a run folder, and the weights of the members.

use super::{
    super::{
        head_ensemble::{HeadEnsemble, MIN_ENSEMBLE_ROWS, known_classes, row_labels},
        inference::InferenceOptions,
        model::Prediction,
    },
    Member, Predictions, Predictor,
};
use crate::{Error, Result};
use mm_core::{DType, Device, Tensor, checkpoint};
use mm_data::{Manifest, Split};
use mm_fusion::late::{CombinationRule, fit_weights};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The file that lists the members of an ensemble in its folder.
pub(in super::super) const ENSEMBLE_FILE: &str = "ensemble.json";

/// The folder of a member inside the folder of its ensemble.
pub(in super::super) fn member_dir(index: usize) -> String {
    format!("member-{index}")
}

/// The members of an ensemble.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EnsembleFile {
    /// Their folders, relative to the file's.
    members: Vec<String>,
    /// Their weights.
    weights: Vec<f64>,
    /// The folders of the same members after they were refit on all rows, validation rows included; used for rows that
    /// no member was trained on. Empty where they were not refit.
    #[serde(default)]
    refit_members: Vec<String>,
}

impl EnsembleFile {
    /// Reads the file of a folder; `None` where there is none.
    pub(super) fn read(run: &Path) -> Result<Option<Self>> {
        let path = run.join(ENSEMBLE_FILE);
        let Ok(text) = std::fs::read(&path) else { return Ok(None) };
        let file: Self =
            serde_json::from_slice(&text).map_err(|e| Error::file(&path, format!("not a list of models: {e}")))?;
        if file.members.is_empty() || file.members.len() != file.weights.len() {
            let (members, weights) = (file.members.len(), file.weights.len());
            let reason = format!("found {members} members and {weights} weights, expected a weight for each member");
            return Err(Error::file(path, reason));
        }
        Ok(Some(file))
    }

    /// Folders and weights of the members that predict rows of a split.
    pub(super) fn members_for(self, run: &Path, split: Split) -> (Vec<PathBuf>, Vec<f64>) {
        let use_refit = split == Split::Test && self.refit_members.len() == self.members.len();
        let members = if use_refit { self.refit_members } else { self.members };
        (members.iter().map(|member| run.join(member)).collect(), self.weights)
    }
}

impl Predictor {
    /// Without members; they are added by [`Predictor::add_member`].
    pub(in super::super) fn empty() -> Self {
        Self { members: Vec::new(), weights: Vec::new() }
    }

    /// Adds a trained model with the ensemble of its heads from its run folder; returns its predictions for these rows.
    pub(in super::super) fn add_member(
        &mut self,
        model: Prediction,
        run: &Path,
        manifest: &Manifest,
        rows: &[usize],
    ) -> Result<Predictions> {
        let member = Member { model, heads: HeadEnsemble::load(run)? };
        let found = member.predict(manifest, rows, InferenceOptions::default())?;
        self.members.push(member);
        self.weights.push(1.0);
        Ok(found)
    }

    /// Fits the weights of the members to their predictions for validation rows; equal weights where there are too few
    /// rows.
    pub(in super::super) fn fit_weights(&mut self, predictions: &[Predictions], manifest: &Manifest) -> Result<()> {
        self.weights = vec![1.0 / predictions.len() as f64; predictions.len()];
        let labels = row_labels(&predictions[0].rows, manifest, self.label_column(), self.target());
        let (indices, classes) = known_classes(&labels);
        if predictions.len() < 2 || !self.target().is_classes() || indices.len() < MIN_ENSEMBLE_ROWS {
            return Ok(());
        }
        let all = Tensor::stack(&predictions.iter().map(|p| &p.values).collect::<Vec<_>>(), 1)?;
        let all = all.index_select(0, &Tensor::from_slice(&indices)?)?;
        let present = Tensor::ones(&all.shape()[..2], DType::F32, Device::Cpu)?;
        self.weights = fit_weights(&all, &present, &classes, CombinationRule::Mean)?;
        Ok(())
    }

    /// Writes the file of the ensemble; the folders of the members are relative to `out`.
    pub(in super::super) fn save(&self, out: &Path, members: Vec<String>, refit_members: Vec<String>) -> Result<()> {
        let path = out.join(ENSEMBLE_FILE);
        let file = EnsembleFile { members, weights: self.weights.clone(), refit_members };
        let text = serde_json::to_string_pretty(&file).map_err(|e| Error::file(&path, e))?;
        Ok(checkpoint::write_atomic(&path, text.as_bytes())?)
    }
}
