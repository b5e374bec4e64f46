//! Late fusion: what models of single modalities say is combined. Everything here takes probabilities `[rows, models, classes]` and which of
//! them there are, `[rows, models]` (1 or 0): a row counts only what it has.

#[cfg(feature = "boosting")]
mod boosted;
mod calibrate;
mod evidential;
mod pool;
mod stacking;

#[cfg(feature = "boosting")]
pub use boosted::{Boosted, Truth};
pub use calibrate::{Isotonic, Temperature};
pub use evidential::{Opinion, dempster, evidential_loss, opinion};
pub use pool::{Rule, combine, fit_weights};
pub use stacking::{folds, stacked};
