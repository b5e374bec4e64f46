//! Prediction: classes, sets of labels or numbers from whatever modalities a row has.
//!
//! A branch for each modality, a fusion operator (or a reasoning network), a head on the fused representation and one
//! on each modality alone are trained together. Afterwards the heads are calibrated, and combined with weights fitted
//! on the validation rows.
//!
//! [`Prediction`] is the model of a config, [`Predictor`] a trained one (or an ensemble of several), and [`fit_table`]
//! trains such an ensemble from a table without a config.

mod attribution;
mod auto_fit;
mod baselines;
#[cfg(not(feature = "boosting"))]
#[path = "boosted_trees_disabled.rs"]
mod boosted_trees;
mod config;
mod dataset;
mod evaluation;
mod fit;
mod head_ensemble;
mod inference;
mod loss;
mod mixing;
mod model;
mod network;
mod precompute;
mod predictor;
mod report;
mod resolve;
mod robustness;
mod search;
mod stacking;
mod target;
mod task;
mod training_state;

pub use attribution::{Attribution, Contribution};
pub use auto_fit::{FitOptions, FitResult, Preset, fit_table};
pub use config::{ContextConfig, Ensembling, InputConfig, LossConfig, PredictionConfig, TASK};
pub use evaluation::Evaluation;
pub use model::Prediction;
pub use network::Saliency;
pub use predictor::{Predictor, RowPrediction, ValuePrediction, write_predictions};
pub use resolve::resolve;
pub use robustness::{Corruption, RobustnessCurve, robustness, robustness_report};
pub use search::{SearchOptions, SearchSpace, Trial, parse_search_space, search};
pub use target::{Label, Problem, Target};
pub use task::spec;
