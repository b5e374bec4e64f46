//! The ensemble of a model's heads: how their predictions become one.

use super::{
    config::Ensembling,
    inference::RowOutputs,
    model::Prediction,
    stacking::{HeadPredictions, Stacking, Targets},
    target::{Label, Problem, Target},
    training_state::FUSED,
};
use crate::{Error, Result};
use mm_core::{DType, Device, Tensor, checkpoint};
use mm_data::Manifest;
use mm_fusion::late::{CombinationRule, TemperatureScaling, combine, fit_weights};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// Weights and temperatures are fitted on at least this many rows.
pub(super) const MIN_ENSEMBLE_ROWS: usize = 30;

/// The file of the ensemble in a run folder.
pub(super) const HEAD_ENSEMBLE_FILE: &str = "head_ensemble.json";

/// Shares of the fused head that are tried in a regression.
const REGRESSION_STEPS: i32 = 20;

/// How the predictions of the heads are combined, fitted on validation rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct HeadEnsemble {
    /// The temperature of each head; `fused` is the head on all modalities.
    temperatures: BTreeMap<String, f64>,
    /// The weight of each head; the fused head alone when empty.
    weights: BTreeMap<String, f64>,
    /// Number of rows that both were fitted on.
    rows: usize,
    /// A stacked model that is used instead of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stacking: Option<Stacking>,
}

/// Predictions of all heads.
struct Heads {
    names: Vec<String>,
    /// Float64 `[rows, heads, classes]`.
    values: Tensor,
    /// `[rows, heads]`.
    present: Tensor,
}

impl Heads {
    fn predictions(&self) -> HeadPredictions<'_> {
        HeadPredictions { values: &self.values, present: &self.present }
    }

    /// Those of some rows.
    fn select(self, rows: &Tensor) -> Result<Self> {
        let (values, present) = (self.values.index_select(0, rows)?, self.present.index_select(0, rows)?);
        Ok(Self { names: self.names, values, present })
    }
}

impl HeadEnsemble {
    /// Without rows to fit it on: equal weights where the config asks for them, else the fused head.
    pub(super) fn unfitted(model: &Prediction) -> Self {
        let mut out = Self::default();
        if model.config.ensembling == Ensembling::Uniform && model.config.has_unimodal_heads() {
            let names = model.modalities().map(ToString::to_string).chain([FUSED.to_owned()]);
            out.weights = names.map(|n| (n, 1.0)).collect();
        }
        out
    }

    /// Fits the ensemble to the outputs for validation rows.
    pub(super) fn fit(model: &Prediction, manifest: &Manifest, outputs: &RowOutputs) -> Result<Self> {
        let mut out = Self { rows: outputs.rows.len(), ..Self::default() };
        let labels = row_labels(&outputs.rows, manifest, &model.config.label, &model.target);
        if model.config.ensembling.is_stacked() {
            out.stacking = Some(out.fit_stacking(model, manifest, outputs, &labels)?);
            return Ok(out);
        }
        if model.config.ensembling != Ensembling::Weighted {
            return Ok(Self::unfitted(model));
        }
        match model.target.problem {
            Problem::Multilabel | Problem::Ordinal => {}
            Problem::Regression => out.fit_regression(model, outputs, &labels)?,
            _ => out.fit_classes(model, outputs, &labels)?,
        }
        Ok(out)
    }

    /// Chooses the share of the fused head that has the smallest squared error; the unimodal heads share the rest.
    fn fit_regression(&mut self, model: &Prediction, outputs: &RowOutputs, labels: &[Option<Label>]) -> Result<()> {
        let number = |l: &Option<Label>| if let Some(Label::Number(v)) = l { *v } else { f64::NAN };
        let targets: Vec<f64> = labels.iter().map(number).collect();
        if targets.len() < MIN_ENSEMBLE_ROWS || outputs.unimodal.len() < 2 {
            return Ok(());
        }
        let mut best = (f64::INFINITY, 1.0);
        for step in 0..=REGRESSION_STEPS {
            let share = f64::from(step) / f64::from(REGRESSION_STEPS);
            let predicted = Self::with_fused_share(share, outputs).predict(model, outputs)?.to_vec::<f64>()?;
            let error = predicted.iter().zip(&targets).map(|(p, t)| (p - t).powi(2)).sum::<f64>();
            if error <= best.0 {
                best = (error, share);
            }
        }
        self.weights = Self::with_fused_share(best.1, outputs).weights;
        Ok(())
    }

    fn with_fused_share(share: f64, outputs: &RowOutputs) -> Self {
        let rest = (1.0 - share) / outputs.unimodal.len().max(1) as f64;
        let unimodal = outputs.unimodal.keys().map(|m| (m.to_string(), rest));
        Self { weights: unimodal.chain([(FUSED.to_owned(), share)]).collect(), ..Self::default() }
    }

    /// Fits a temperature for each head, then the weights of their log-linear pool.
    fn fit_classes(&mut self, model: &Prediction, outputs: &RowOutputs, labels: &[Option<Label>]) -> Result<()> {
        let (indices, classes) = known_classes(labels);
        if indices.len() < MIN_ENSEMBLE_ROWS {
            return Ok(());
        }
        let known = Tensor::from_slice(&indices)?;
        let fused = TemperatureScaling::fit(&outputs.fused.index_select(0, &known)?, &classes)?;
        self.temperatures.insert(FUSED.into(), fused.0);
        for (modality, (logits, flags)) in &outputs.unimodal {
            let flags = flags.index_select(0, &known)?.to_vec::<f64>()?;
            let present: Vec<usize> = (0..indices.len()).filter(|n| flags[*n] > 0.5).collect();
            if present.len() >= MIN_ENSEMBLE_ROWS {
                let rows = Tensor::from_slice(&present.iter().map(|n| indices[*n]).collect::<Vec<_>>())?;
                let classes: Vec<i64> = present.iter().map(|n| classes[*n]).collect();
                let fitted = TemperatureScaling::fit(&logits.index_select(0, &rows)?, &classes)?;
                self.temperatures.insert(modality.to_string(), fitted.0);
            }
        }
        let Heads { names, values, present } = self.heads(model, outputs)?.select(&known)?;
        let weights = fit_weights(&values, &present, &classes, CombinationRule::LogPool)?;
        self.weights = names.into_iter().zip(weights).collect();
        Ok(())
    }

    fn fit_stacking(
        &self,
        model: &Prediction,
        manifest: &Manifest,
        outputs: &RowOutputs,
        labels: &[Option<Label>],
    ) -> Result<Stacking> {
        let number = |(n, l): (usize, &Option<Label>)| match l {
            Some(Label::Number(v)) => Some((n as i64, *v)),
            _ => None,
        };
        let numbers: Vec<(i64, f64)> = labels.iter().enumerate().filter_map(number).collect();
        let (indices, classes) = known_classes(labels);
        let indices = if indices.is_empty() { numbers.iter().map(|(n, _)| *n).collect() } else { indices };
        let heads = self.heads(model, outputs)?.select(&Tensor::from_slice(&indices)?)?;
        let groups: Vec<String> =
            indices.iter().map(|n| manifest.rows[outputs.rows[*n as usize]].item.clone()).collect();
        if model.config.ensembling == Ensembling::LogisticRegression {
            return Stacking::fit_logistic_regression(heads.predictions(), &classes, &groups);
        }
        let numbers: Vec<f64> = numbers.into_iter().map(|(_, v)| v).collect();
        let targets = if classes.is_empty() {
            Targets::Values(&numbers)
        } else {
            Targets::Classes(&classes, model.target.classes.len())
        };
        Stacking::fit_gradient_boosting(heads.predictions(), &targets, &groups)
    }

    /// Writes the ensemble into a run folder.
    pub(super) fn save(&self, run: &Path) -> Result<()> {
        let path = run.join(HEAD_ENSEMBLE_FILE);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::file(&path, e))?;
        Ok(checkpoint::write_atomic(&path, text.as_bytes())?)
    }

    /// Reads the ensemble of a run folder; the fused head alone where there is none.
    pub(super) fn load(run: &Path) -> Result<Self> {
        let path = run.join(HEAD_ENSEMBLE_FILE);
        match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|e| Error::file(path, e)),
            Err(_) => Ok(Self::default()),
        }
    }

    /// The predictions of each head.
    fn heads(&self, model: &Prediction, outputs: &RowOutputs) -> Result<Heads> {
        let stats = model.label_stats()?;
        let temperature = |name: &str| self.temperatures.get(name).copied().unwrap_or(1.0);
        let mut names = vec![FUSED.to_owned()];
        let mut values = vec![model.target.probabilities(&outputs.fused, temperature(FUSED), stats)?];
        let rows = outputs.rows.len() as i64;
        // The fused head is missing in rows without any modality.
        let any: Vec<f32> = outputs.present.iter().map(|p| f32::from(u8::from(!p.is_empty()))).collect();
        let mut present = vec![Tensor::from_slice(&any)?.reshape(&[rows])?];
        for (modality, (logits, flags)) in &outputs.unimodal {
            names.push(modality.to_string());
            values.push(model.target.probabilities(logits, temperature(modality.name()), stats)?);
            present.push(flags.clone());
        }
        let values = Tensor::stack(&values.iter().collect::<Vec<_>>(), 1)?;
        Ok(Heads { names, values, present: Tensor::stack(&present.iter().collect::<Vec<_>>(), 1)? })
    }

    /// Probabilities `[rows, classes]`, or values `[rows, 1]`, float64.
    pub(super) fn predict(&self, model: &Prediction, outputs: &RowOutputs) -> Result<Tensor> {
        let heads = self.heads(model, outputs)?;
        if let Some(stacking) = &self.stacking {
            return stacking.predict(heads.predictions());
        }
        let Heads { names, values, present } = heads;
        let fused_only = self.weights.is_empty();
        let weight = |name: &String| {
            if fused_only { f64::from(u8::from(name == FUSED)) } else { self.weights.get(name).copied().unwrap_or(0.0) }
        };
        let weights: Vec<f64> = names.iter().map(weight).collect();
        if model.target.is_classes() {
            return Ok(combine(&values, &present, CombinationRule::LogPool, Some(&weights))?);
        }
        if model.target.problem == Problem::Multilabel {
            return Ok(values.select(1, 0)?);
        }
        let shares = present.to_dtype(DType::F64)?.mul(&Tensor::from_slice(&weights)?)?;
        let total = shares.sum_dim(&[1], true)?;
        let mean = values.squeeze(2)?.mul(&shares)?.sum_dim(&[1], true)?.div(&total.clamp_min(1e-12)?)?;
        // A row without any modality gets the mean of the training rows.
        let default = Tensor::full(&[1, 1], model.label_stats()?.0, DType::F64, Device::Cpu)?;
        Ok(mean.where_cond(&total.gt_scalar(1e-9)?, &default)?)
    }
}

/// The labels of rows.
pub(super) fn row_labels(rows: &[usize], manifest: &Manifest, column: &str, target: &Target) -> Vec<Option<Label>> {
    rows.iter().map(|r| target.encode(manifest.rows[*r].cells.get(column)?)).collect()
}

/// Indices of the labels that are classes, and these classes.
pub(super) fn known_classes(labels: &[Option<Label>]) -> (Vec<i64>, Vec<i64>) {
    let known = labels.iter().enumerate();
    known.filter_map(|(n, l)| if let Some(Label::Class(c)) = l { Some((n as i64, *c as i64)) } else { None }).unzip()
}
