//! Late fusion: the predictions of several models are combined.
//!
//! Functions take probabilities `[rows, models, classes]` and a mask `[rows, models]` that is 1 where the model has a
//! prediction for the row and 0 where it has none; absent predictions are ignored.

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
