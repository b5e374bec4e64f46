//! `mm align`: maps two feature arrays with paired rows into one space by any alignment method, with hyper-parameters
//! selected on held-out training rows.

mod data;
mod evaluate;
mod files;
mod neural;
mod objectives;
mod search;

pub use data::{hold_out, index_labels, paired_features, subsample_pairs};
pub use evaluate::{AlignmentMetrics, evaluate};
pub use files::{PairedArrays, project_array, read_paired_arrays};
pub use neural::NeuralAlignment;
pub use search::{AUTO, FittedAlignment, SearchOptions, Trial, search};

pub use mm_align::{AlignmentMethod, MethodRegistry, PairedFeatures};

use mm_align::alignment_methods;

/// All methods: the closed-form ones of mm-align and the networks of this crate. More can be registered.
pub fn methods() -> MethodRegistry {
    let mut registry = alignment_methods();
    objectives::register(&mut registry);
    registry
}
