//! The training objective: the loss that a trainer minimizes, and its state.

use crate::{Result, Tensor};

/// A scalar to be minimized, and metrics to be logged with it.
pub type LossOutput = (Tensor, Vec<(String, f64)>);

/// An objective that a trainer minimizes over batches.
pub trait TrainingObjective<Batch> {
    /// The loss of a batch; none when nothing can be learned from it (too many of its rows failed, for instance).
    ///
    /// # Errors
    /// If the batch does not fit the model.
    fn loss(&self, batch: &Batch, train: bool) -> Result<Option<LossOutput>>;

    /// State besides the parameters that a resumed run needs: tensors by name.
    ///
    /// # Errors
    /// If the state cannot be read.
    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }

    /// Restores what [`TrainingObjective::state`] returned; `find` returns a saved tensor by its name.
    ///
    /// # Errors
    /// If the saved tensors do not fit.
    fn load_state(&self, _find: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
        Ok(())
    }
}
