//! Alignment with class labels.

mod joint_feature_selection;
mod logistic;
mod semantic_matching;

pub use joint_feature_selection::{JointFeatureSelection, SelectedFeatures, joint_feature_selection};
pub use logistic::LogisticRegression;
pub use semantic_matching::{SemanticCorrelationMatching, SemanticMatching};
