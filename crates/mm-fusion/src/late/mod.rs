//! Late fusion: the predictions of several models are combined.
//!
//! Functions take probabilities `[rows, models, classes]` and which of them are present, `[rows, models]` (1 or 0);
//! absent predictions do not count.

#[cfg(feature = "boosting")]
mod boosted_trees;
mod combine;
mod stacking;
mod temperature_scaling;

#[cfg(feature = "boosting")]
pub use boosted_trees::{BoostedTrees, Targets};
pub use combine::{CombinationRule, combine, fit_weights};
pub use stacking::{group_stratified_folds, stacking_features};
pub use temperature_scaling::TemperatureScaling;
