//! The config of the task.

use super::TASK;
use mm_core::{Modality, Registry, Source};
use mm_data::{Manifest, Row, Split};
use mm_tasks::{
    Error, Result,
    config::{CommonConfig, TaskConfig},
};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The task's own keys, next to those that every task has (`data`, `loader`, `train` …).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateNameConfig {
    #[serde(skip)]
    common: CommonConfig,
    /// The modality that is read.
    pub modality: Modality,
    /// The column of the numbers to predict.
    pub target: String,
    /// Mean and standard deviation of the numbers; those of the training rows when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statistics: Option<[f64; 2]>,
    /// The encoder of the modality, by its `kind`.
    pub encoder: toml::Value,
}

impl TaskConfig for TemplateNameConfig {
    const TASK: &'static str = TASK;

    fn common(&self) -> &CommonConfig {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonConfig {
        &mut self.common
    }

    fn validate(&self) -> Result<()> {
        match self.statistics {
            Some([mean, deviation]) if !(mean.is_finite() && deviation > 0.0) => {
                let found = format!("[{mean}, {deviation}]");
                Err(Error::invalid("statistics", found, "a finite mean and a positive standard deviation"))
            }
            _ => Ok(()),
        }
    }
}

impl TemplateNameConfig {
    /// The number of a row; none where its cell is empty or no number.
    pub fn number(&self, row: &Row) -> Option<f64> {
        row.cells.get(&self.target)?.trim().parse().ok().filter(|v: &f64| v.is_finite())
    }

    /// The rows of a split that have a number and a value of the modality, as indices into the data set.
    ///
    /// # Errors
    /// When there is none.
    pub fn rows(&self, manifest: &Manifest, split: Split) -> Result<Vec<usize>> {
        let is_usable = |index: &usize| {
            let row = &manifest.rows[*index];
            row.values.contains_key(&self.modality) && self.number(row).is_some()
        };
        let rows: Vec<usize> = manifest.rows_in_split(split).into_iter().filter(is_usable).collect();
        if rows.is_empty() {
            let (path, modality) = (manifest.path.display(), &self.modality);
            let found = format!("no {split} row with a number and a value of {modality} in {path}");
            return Err(Error::invalid("target", found, "at least one"));
        }
        Ok(rows)
    }

    /// Computes what is absent from the training rows: statistics, and the encoder's own (a vocabulary).
    ///
    /// # Errors
    /// When the data set cannot be read, or its training rows are unsuitable.
    pub fn complete(&mut self, base_dir: &Path, encoders: &Registry) -> Result<()> {
        if self.statistics.is_some() && !encoders.is_incomplete(&self.encoder) {
            return Ok(());
        }
        let manifest = Manifest::open(&self.common.data, &self.common.base_dir_or(base_dir))?;
        let rows = self.rows(&manifest, Split::Train)?;
        let values: Vec<&Source> =
            rows.iter().filter_map(|row| manifest.rows[*row].values.get(&self.modality)?.first()).collect();
        encoders.complete(&mut self.encoder, &values)?;
        let numbers: Vec<f64> = rows.iter().filter_map(|row| self.number(&manifest.rows[*row])).collect();
        let count = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / count;
        let deviation = (numbers.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
        self.statistics.get_or_insert([mean, deviation.max(1e-9)]);
        Ok(())
    }
}
