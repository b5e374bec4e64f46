//! Options and result of [`fit_table`](super::fit_table).

use crate::{Error, Result, metrics::Metrics, prediction::target::Problem};
use mm_data::{FailedSample, Split, TableOptions};
use std::{collections::BTreeMap, path::PathBuf};

/// Preset that determines how many models are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Preset {
    /// One model.
    Fast,
    /// An ensemble of three models with different fusion operators.
    #[default]
    Good,
    /// An ensemble of eight models: four fusion operators with two seeds each.
    Best,
}

impl std::str::FromStr for Preset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "fast" => Ok(Self::Fast),
            "good" => Ok(Self::Good),
            "best" => Ok(Self::Best),
            other => Err(mm_core::Error::unknown("preset", other, ["fast", "good", "best"]).into()),
        }
    }
}

impl Preset {
    /// Fusion operator and seed of each model.
    pub(super) fn members(self) -> Vec<(&'static str, u64)> {
        match self {
            Self::Fast => vec![("concat", 0)],
            Self::Good => vec![("concat", 0), ("gated", 1), ("low_rank_fusion", 2)],
            Self::Best => {
                // Each operator is at an even and at an odd index, and so used with both proposals of encoders.
                let operators = ["concat", "gated", "low_rank_fusion", "mixture_of_experts"];
                (0..2).flat_map(|seed| (0..4).map(move |n| (operators[(n + seed) % 4], seed as u64))).collect()
            }
        }
    }

    /// Batches that a model is trained on, about.
    pub(super) fn num_batches(self) -> usize {
        match self {
            Self::Fast => 1200,
            Self::Good => 2000,
            Self::Best => 3000,
        }
    }
}

/// Options of a fit.
#[derive(Debug, Clone, Default)]
pub struct FitOptions {
    /// The training table.
    pub data: PathBuf,
    /// The column to predict.
    pub label_column: String,
    /// The columns of each modality; inferred when empty.
    pub columns: BTreeMap<String, Vec<String>>,
    /// Encoding of the tables, a WHATWG label; UTF-8 when absent.
    pub encoding: Option<String>,
    /// Texts that stand for a missing value, besides the empty one; as pandas reads them when absent.
    pub missing_values: Option<Vec<String>>,
    /// Whether files that cells name by URL are fetched.
    pub fetch_urls: bool,
    /// The type of problem.
    pub problem: Problem,
    /// A table for model selection and calibration; a fraction of the training table when absent.
    pub validation_data: Option<PathBuf>,
    /// A column whose equal values stay in one split; when absent, identical rows do.
    pub group_column: Option<String>,
    /// Fraction of the rows (or groups) that is held out for the final metrics.
    pub test_fraction: f64,
    /// Preset that determines how many models are trained.
    pub preset: Preset,
    /// Seconds after which training stops; what is trained by then is used.
    pub time_limit: Option<f64>,
    /// Whether the models are refit on all rows (but the test rows) for the number of epochs that was best on the
    /// validation rows.
    pub refit: bool,
    /// Random seed.
    pub seed: u64,
    /// The folder for the models.
    pub out: PathBuf,
}

impl FitOptions {
    /// The options of `mm fit` without any other argument than these.
    pub fn new(data: impl Into<PathBuf>, label_column: impl Into<String>, out: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            label_column: label_column.into(),
            columns: BTreeMap::new(),
            encoding: None,
            missing_values: None,
            fetch_urls: false,
            problem: Problem::Auto,
            validation_data: None,
            group_column: None,
            test_fraction: 0.0,
            preset: Preset::Good,
            time_limit: None,
            refit: true,
            seed: 0,
            out: out.into(),
        }
    }

    /// How the tables are read.
    pub(super) fn table_options(&self) -> TableOptions<'_> {
        TableOptions {
            encoding: self.encoding.as_deref(),
            missing_values: self.missing_values.as_deref(),
            fetch_urls: self.fetch_urls,
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        if !(0.0..0.8).contains(&self.test_fraction) {
            return Err(Error::invalid("test_fraction", self.test_fraction, "a number in [0, 0.8)"));
        }
        if self.test_fraction > 0.0 && self.validation_data.is_some() {
            return Err(Error::invalid("test_fraction", "validation_data as well", "one of the two")
                .with_hint("evaluate on a table with `mm eval --data`"));
        }
        if let Some(limit) = self.time_limit.filter(|t| !(*t > 0.0 && t.is_finite())) {
            return Err(Error::invalid("time_limit", limit, "a positive number of seconds"));
        }
        Ok(())
    }
}

/// The result of a fit.
#[derive(Debug, Clone)]
pub struct FitResult {
    /// The type of problem.
    pub problem: Problem,
    /// The classes.
    pub classes: Vec<String>,
    /// The columns of each modality.
    pub columns: BTreeMap<String, String>,
    /// The split of the metrics: test where rows were held out for them alone, else valid.
    pub split: Split,
    /// Metrics on that split.
    pub metrics: Metrics,
    /// Metrics with each modality alone (`image_only`) and without it (`without_image`).
    pub ablations: BTreeMap<String, Metrics>,
    /// Number of training rows.
    pub train_rows: usize,
    /// Values that could not be read and were skipped.
    pub failed: Vec<FailedSample>,
    /// Whether the time limit or Ctrl-C stopped it.
    pub stopped: bool,
    /// Number of models.
    pub num_members: usize,
    /// Number of rows that the models were refit on, where they were.
    pub refit_rows: Option<usize>,
}
