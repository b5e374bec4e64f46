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

    /// The batch in chunks, where a trainer is to compute its gradients by gradient caching; none where
    /// [`TrainingObjective::loss`] is to embed all its rows at once.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    fn chunks<'b>(&'b self, _batch: &'b Batch) -> Result<Option<Box<dyn ChunkedLoss + 'b>>> {
        Ok(None)
    }

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

/// A batch whose rows are embedded in chunks: the gradients are those of the whole batch, and activations are kept for
/// one chunk at a time (gradient caching, *Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup*, Gao
/// et al., 2021, <https://arxiv.org/abs/2101.06983>).
///
/// A trainer embeds each chunk twice: all of them without gradients, for the loss and its gradients with respect to the
/// embeddings; then one after another with gradients, to propagate these to the parameters.
pub trait ChunkedLoss {
    /// Number of chunks.
    fn num_chunks(&self) -> usize;

    /// The embeddings of a chunk, in training. The trainer sets the random seed before each call, to the same for the
    /// same chunk: both calls have to return the same values, which depend on no other chunk. Where several processes
    /// train together, their numbers of chunks may differ: it computes alone.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    fn embed(&self, chunk: usize) -> Result<Vec<Tensor>>;

    /// The loss of the embeddings of all chunks; none when nothing can be learned from the batch.
    ///
    /// # Errors
    /// If the embeddings do not fit together.
    fn loss(&self, embeddings: &[Vec<Tensor>]) -> Result<Option<LossOutput>>;
}
