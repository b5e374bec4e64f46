//! Stands for gradient-boosted trees where the feature `boosting` is off: a run that has some loads, and says so when
//! it would need them.

use mm_core::Tensor;
use mm_fusion::{Error, Result};
use serde::{Deserialize, Serialize};

/// The trees as a run folder holds them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct BoostedTrees {
    trees: Vec<String>,
    classes: usize,
}

/// The targets of [`BoostedTrees`].
#[allow(dead_code)]
pub(super) enum Targets<'a> {
    /// Class indices and the number of classes.
    Classes(&'a [i64], usize),
    /// Real values.
    Values(&'a [f64]),
}

impl BoostedTrees {
    pub(super) fn fit(_: &Tensor, _: &Tensor, _: &Targets<'_>, _: &[String], _: u64) -> Result<Self> {
        Err(disabled())
    }

    #[allow(clippy::unused_self)]
    pub(super) fn apply(&self, _: &Tensor, _: &Tensor) -> Result<Tensor> {
        Err(disabled())
    }
}

fn disabled() -> Error {
    Error::Config {
        what: "stacking".into(),
        found: "gradient-boosted trees".into(),
        expected: "a program that is built with the feature `boosting` of mm-tasks".into(),
    }
}
