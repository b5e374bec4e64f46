//! Worker threads: raw values → samples → batches.

use super::{
    batch::{Batch, ModalityBatch, collate},
    config::{ErrorPolicy, LoaderConfig},
    plan::{EpochPlanner, PlannedBatch},
};
use crate::{Dataset, Error, Result};
use mm_core::{Modality, ProcessContext, Processor, SendTensor, Source, Tensor, seed::Rng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// A sample that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FailedSample {
    /// The row in the manifest, counted from 1.
    pub row: usize,
    /// The id.
    pub id: String,
    /// The modality that could not be read.
    pub modality: String,
    /// The file and what is wrong with it.
    pub reason: String,
}

impl fmt::Display for FailedSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} ({}), {}: {}", self.row, self.id, self.modality, self.reason)
    }
}

/// Each modality of a sample with the index of the value that was taken.
type Sample<'a> = Vec<(&'a Modality, SendTensor, usize)>;

/// State that all worker threads share.
pub(super) struct Shared {
    pub(super) dataset: Arc<dyn Dataset>,
    pub(super) planner: EpochPlanner,
    pub(super) processors: BTreeMap<Modality, Arc<dyn Processor>>,
    pub(super) config: LoaderConfig,
    pub(super) seed: u64,
    pub(super) train: bool,
    pub(super) pool: rayon::ThreadPool,
    pub(super) failed: Mutex<BTreeMap<(usize, String), FailedSample>>,
}

impl Shared {
    /// Reads the rows of one batch in parallel and collates them.
    pub(super) fn load_batch(&self, epoch: u64, index: usize, planned: &PlannedBatch) -> Result<Batch> {
        let rows = &planned.rows;
        let samples: Vec<Result<Option<Sample<'_>>>> =
            self.pool.install(|| rows.par_iter().map(|r| self.load_sample(epoch, *r)).collect());
        let mut batch = Batch {
            index,
            rows: Vec::new(),
            ids: Vec::new(),
            items: Vec::new(),
            modalities: BTreeMap::new(),
            is_shard: planned.is_shard,
            whole: None,
        };
        let mut columns: BTreeMap<&Modality, (Vec<Tensor>, Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (row, sample) in rows.iter().zip(samples) {
            let Some(sample) = sample? else { continue };
            for (modality, tensor, source_index) in sample {
                let column = columns.entry(modality).or_default();
                column.0.push(tensor.into());
                column.1.push(batch.rows.len());
                column.2.push(source_index);
            }
            batch.rows.push(*row);
            batch.ids.push(self.dataset.id(*row).to_owned());
            batch.items.push(self.dataset.item(*row).to_owned());
        }
        for (modality, (tensors, rows, source_index)) in columns {
            let input = collate(&tensors, self.processors[modality].as_ref())?;
            batch.modalities.insert(modality.clone(), ModalityBatch { input, rows, source_index });
        }
        Ok(batch)
    }

    /// Reads one row; `None` when one of its values cannot be read and errors are skipped.
    fn load_sample(&self, epoch: u64, row: usize) -> Result<Option<Sample<'_>>> {
        let mut sample = Vec::new();
        for (position, (modality, processor)) in self.processors.iter().enumerate() {
            let sources = self.dataset.sources(row, modality);
            if sources.is_empty() {
                continue;
            }
            let mut rng = Rng::new(&[self.seed, epoch, row as u64, position as u64]);
            let always_first = !self.train || self.config.always_first_source.iter().any(|m| m == modality.name());
            let source_index = if always_first { 0 } else { rng.below(sources.len()) };
            let mut context = ProcessContext { train: self.train, rng };
            let processed = process_catching_panics(processor.as_ref(), &sources[source_index], &mut context);
            match processed.and_then(Tensor::into_send) {
                Ok(tensor) => sample.push((modality, tensor, source_index)),
                Err(error) => return self.record_failure(row, modality, &error).map(|()| None),
            }
        }
        Ok(Some(sample))
    }

    /// Records a sample that could not be read, and logs it the first time; an error when errors are fatal.
    fn record_failure(&self, row: usize, modality: &Modality, error: &mm_core::Error) -> Result<()> {
        let failed = FailedSample {
            row: self.dataset.row_number(row),
            id: self.dataset.id(row).to_owned(),
            modality: modality.to_string(),
            reason: error.to_string(),
        };
        if self.config.on_error == ErrorPolicy::Fail {
            return Err(Error::FailedSample {
                sample: failed.to_string(),
                hint: "loader.on_error is \"fail\"; \"skip\" leaves such samples out",
            });
        }
        let mut known = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if known.insert((row, modality.to_string()), failed.clone()).is_none() {
            tracing::warn!("skipped {failed}");
        }
        Ok(())
    }
}

/// Runs a reader of a file. A panic in a library is returned as its message, so that a damaged file is an error.
pub fn catching_panics<T>(read: impl FnOnce() -> T) -> std::result::Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(read)).map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
        format!("the file is damaged: a library that reads it failed ({text})")
    })
}

/// Processes one raw value. A panic in a decoding library is returned as an error, so that one file does not end the
/// run.
pub fn process_catching_panics(
    processor: &dyn Processor,
    source: &Source,
    context: &mut ProcessContext,
) -> Result<Tensor, mm_core::Error> {
    let attempt = std::panic::AssertUnwindSafe(|| processor.process(source, context));
    std::panic::catch_unwind(attempt)
        .unwrap_or_else(|_| Err(mm_core::Error::Sample(format!("a decoder panicked on {source:?}"))))
}
