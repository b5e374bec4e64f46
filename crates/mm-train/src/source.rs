//! Where training batches come from.

use crate::Result;

/// Training batches of any type, by epoch, in an order that depends on the epoch alone.
///
/// [`mm_data::Loader`] is one; a `Vec` of batches is one too, which gives the same batches in the same order in every epoch.
pub trait BatchSource {
    /// One batch.
    type Batch;

    /// Number of batches in an epoch.
    fn num_batches(&self, epoch: u64) -> usize;

    /// The batches of an epoch from batch `first` on; a resumed run starts in the middle of its epoch.
    fn batches(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<Self::Batch>> + '_>;

    /// Number of training samples, for messages.
    fn num_samples(&self) -> usize;

    /// The ids of a batch's samples: they name the batch in error messages, and their number gives the throughput.
    fn sample_ids(&self, batch: &Self::Batch) -> Vec<String>;
}

impl BatchSource for mm_data::Loader {
    type Batch = mm_data::Batch;

    fn num_batches(&self, epoch: u64) -> usize {
        Self::num_batches(self, epoch)
    }

    fn batches(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<Self::Batch>> + '_> {
        Box::new(self.epoch(epoch, first).map(|batch| Ok(batch?)))
    }

    fn num_samples(&self) -> usize {
        self.num_rows()
    }

    fn sample_ids(&self, batch: &Self::Batch) -> Vec<String> {
        batch.ids.clone()
    }
}

impl<B: Clone> BatchSource for Vec<B> {
    type Batch = B;

    fn num_batches(&self, _epoch: u64) -> usize {
        self.len()
    }

    fn batches(&self, _epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<B>> + '_> {
        Box::new(self.iter().skip(first).cloned().map(Ok))
    }

    fn num_samples(&self) -> usize {
        self.len()
    }

    fn sample_ids(&self, _batch: &B) -> Vec<String> {
        Vec::new()
    }
}
