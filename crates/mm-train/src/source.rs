//! Sources of training batches.

use crate::Result;

/// A source of training batches of any type. The batches of an epoch and their order are a function of the epoch alone.
///
/// Implemented by [`mm_data::Loader`], and by `Vec`, which gives the same batches in the same order in every epoch.
///
/// Where several processes train together, the source of each gives its part of every batch, and as many batches as
/// those of the others.
pub trait BatchSource {
    /// One batch.
    type Batch;

    /// Number of batches in an epoch.
    fn num_batches(&self, epoch: u64) -> usize;

    /// The batches of an epoch from index `first` on, so that a resumed run can start in the middle of an epoch.
    fn batches(&self, epoch: u64, first: usize) -> Box<dyn Iterator<Item = Result<Self::Batch>> + '_>;

    /// Number of training samples, for messages.
    fn num_samples(&self) -> usize;

    /// The ids of a batch's samples, which are named in error messages and counted for the throughput.
    fn sample_ids(&self, batch: &Self::Batch) -> Vec<String>;

    /// Makes a batch ready where several processes train together; returns whether it is a part of a batch of which the
    /// others have the rest. A batch that is no part is the same in all processes, and each computes all of it.
    ///
    /// # Errors
    /// When a process ended or does not come.
    fn synchronize(&self, batch: Self::Batch) -> Result<(Self::Batch, bool)> {
        Ok((batch, true))
    }
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

    fn synchronize(&self, batch: Self::Batch) -> Result<(Self::Batch, bool)> {
        let batch = batch.synchronized()?;
        let is_part = batch.is_shard;
        Ok((batch, is_part))
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
