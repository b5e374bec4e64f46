//! Reading values outside the training loop: in parallel, with the samples that could not be read next to those that
//! could.

use crate::Result;
use mm_core::{Input, Modality, ProcessContext, Processor, SendTensor, Source, Tensor, parallel_tensors};
use mm_data::{FailedSample, Manifest, Row, collate, process_catching_panics};

/// Rows of one modality that are read and encoded together.
pub(crate) const BATCH_SIZE: usize = 64;

/// Samples of some values.
pub(crate) struct SampleBatch {
    /// Indices of the values that could be read.
    pub(crate) indices: Vec<usize>,
    /// Their samples.
    pub(crate) samples: Vec<Tensor>,
    /// Indices and errors of the values that could not be read.
    pub(crate) failed: Vec<(usize, mm_core::Error)>,
}

/// A [`SampleBatch`] on its way to another thread.
pub(crate) struct SendSampleBatch {
    indices: Vec<usize>,
    samples: Vec<SendTensor>,
    failed: Vec<(usize, mm_core::Error)>,
}

impl From<SendSampleBatch> for SampleBatch {
    fn from(sent: SendSampleBatch) -> Self {
        let samples = sent.samples.into_iter().map(Tensor::from).collect();
        Self { indices: sent.indices, samples, failed: sent.failed }
    }
}

impl SampleBatch {
    /// Processes values in parallel, without augmentation.
    pub(crate) fn read(processor: &dyn Processor, sources: &[&Source]) -> Self {
        let process = |source: &&Source| process_catching_panics(processor, source, &mut ProcessContext::eval());
        let mut batch = Self { indices: Vec::new(), samples: Vec::new(), failed: Vec::new() };
        for (index, sample) in parallel_tensors(sources, process).into_iter().enumerate() {
            match sample {
                Ok(sample) => {
                    batch.indices.push(index);
                    batch.samples.push(sample);
                }
                Err(error) => batch.failed.push((index, error)),
            }
        }
        batch
    }

    /// Prepares the samples for a move to another thread.
    pub(crate) fn into_send(self) -> mm_core::Result<SendSampleBatch> {
        let samples = self.samples.into_iter().map(Tensor::into_send).collect::<mm_core::Result<_>>()?;
        Ok(SendSampleBatch { indices: self.indices, samples, failed: self.failed })
    }

    /// The samples as one input; `None` when no value could be read.
    pub(crate) fn collate(&self, processor: &dyn Processor) -> Result<Option<Input>> {
        if self.samples.is_empty() {
            return Ok(None);
        }
        Ok(Some(collate(&self.samples, processor)?))
    }
}

/// One input of all values.
///
/// # Errors
/// When one of them cannot be read.
pub(crate) fn read_all(processor: &dyn Processor, sources: &[Source]) -> Result<Input> {
    let mut batch = SampleBatch::read(processor, &sources.iter().collect::<Vec<_>>());
    match batch.failed.pop() {
        Some((_, error)) => Err(error.into()),
        None => Ok(collate(&batch.samples, processor)?),
    }
}

/// The first value of one modality in some rows.
pub(crate) struct RowBatch {
    /// Positions, in the given rows, of those that have the modality and could be read.
    pub(crate) positions: Vec<usize>,
    /// Their samples.
    pub(crate) samples: Vec<Tensor>,
    /// The rows whose value could not be read.
    pub(crate) failed: Vec<FailedSample>,
}

impl RowBatch {
    /// Reads `rows` (indices into [`Manifest::rows`]) in parallel.
    pub(crate) fn read(manifest: &Manifest, rows: &[usize], modality: &Modality, processor: &dyn Processor) -> Self {
        let value =
            |(position, row): (usize, &usize)| Some((position, manifest.rows[*row].values.get(modality)?.first()?));
        let (present, sources): (Vec<usize>, Vec<&Source>) = rows.iter().enumerate().filter_map(value).unzip();
        let SampleBatch { indices, samples, failed } = SampleBatch::read(processor, &sources);
        let failed = failed.into_iter().map(|(n, e)| failed_sample(&manifest.rows[rows[present[n]]], modality, &e));
        Self { positions: indices.into_iter().map(|n| present[n]).collect(), samples, failed: failed.collect() }
    }
}

/// The entry of a value that could not be read.
pub(crate) fn failed_sample(row: &Row, modality: &Modality, error: &dyn std::fmt::Display) -> FailedSample {
    FailedSample { row: row.number, id: row.id.clone(), modality: modality.to_string(), reason: error.to_string() }
}

/// The texts of a row in one modality.
pub(crate) fn texts<'a>(
    manifest: &'a Manifest,
    row: usize,
    modality: &Modality,
) -> impl Iterator<Item = &'a str> + use<'a> {
    let values = manifest.rows[row].values.get(modality).into_iter().flatten();
    values.filter_map(|v| if let Source::Text(text) = v { Some(text.as_str()) } else { None })
}
