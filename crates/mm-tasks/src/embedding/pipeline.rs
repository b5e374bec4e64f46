//! Decoding and embedding: values are decoded one batch ahead of the model.

use super::{
    embedder::Embedder,
    options::{EmbedOptions, Entry},
};
use crate::{Error, Result, batch::SampleBatch};
use mm_core::{Modality, Processor, Source, Tensor};
use mm_data::Manifest;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
};

/// The vector of a value, or why there is none.
pub(super) type VectorResult = std::result::Result<Vec<f32>, String>;

/// Receives the vectors of a batch of entries.
type Save<'a> = &'a mut dyn FnMut(&[usize], Vec<VectorResult>) -> Result<()>;

/// Values that are decoded together; their memory, not their number, is alike.
fn batch_size(modality: &Modality) -> usize {
    match modality.name() {
        "text" => 2048,
        "video" => 8,
        _ => 64,
    }
}

/// Embeds entries of a data set.
pub(super) struct Pipeline<'a> {
    pub(super) model: &'a dyn Embedder,
    pub(super) manifest: &'a Manifest,
    pub(super) entries: &'a [Entry],
    pub(super) options: &'a EmbedOptions,
}

impl Pipeline<'_> {
    /// Embeds entries, which have a value, and saves each batch; returns whether it was stopped. A thread decodes one
    /// batch ahead.
    pub(super) fn run(&self, entries: &[usize], stop: &AtomicBool, save: Save<'_>) -> Result<bool> {
        let batches = self.batches(entries);
        let mut processors = BTreeMap::new();
        for modality in self.model.modalities() {
            let processor = self.model.processor(&modality)?;
            processors.insert(modality, processor);
        }
        let (manifest, all) = (self.manifest, self.entries);
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            let (to_decode, processors) = (&batches, &processors);
            scope.spawn(move || {
                for batch in to_decode {
                    // The receiver is dropped when the work ends early.
                    if sender.send(decode(manifest, all, batch, processors).into_send()).is_err() {
                        return;
                    }
                }
            });
            for batch in &batches {
                if stop.load(Ordering::Relaxed) {
                    return Ok(true);
                }
                let ended = |_| Error::Config("the decoding thread ended before its work was done".into());
                let decoded = receiver.recv().map_err(ended)??.into();
                save(batch, self.embed(batch, decoded)?)?;
            }
            Ok(false)
        })
    }

    /// Batches of one modality each.
    fn batches<'e>(&self, entries: &'e [usize]) -> Vec<&'e [usize]> {
        let same_modality = |a: &usize, b: &usize| self.entries[*a].modality == self.entries[*b].modality;
        let runs = entries.chunk_by(same_modality);
        runs.flat_map(|run| run.chunks(batch_size(&self.entries[run[0]].modality))).collect()
    }

    /// The vectors of a decoded batch.
    fn embed(&self, batch: &[usize], decoded: SampleBatch) -> Result<Vec<VectorResult>> {
        let SampleBatch { indices, samples, failed } = decoded;
        let mut results: Vec<VectorResult> = vec![Err("the model returned no vector".into()); batch.len()];
        for (index, error) in failed {
            results[index] = Err(error.to_string());
        }
        if !samples.is_empty() {
            let vectors = self.model.embed_samples(&self.entries[batch[0]].modality, &samples, self.options.pooling)?;
            for (index, vector) in indices.into_iter().zip(to_rows(&vectors, self.options.normalize)?) {
                results[index] = vector;
            }
        }
        if let (true, Some((entry, reason))) = (self.options.fail_on_error, first_error(batch, &results)) {
            let id = &self.manifest.rows[self.entries[entry].row].id;
            return Err(Error::Core(mm_core::Error::Sample(format!("{id}: {reason}"))));
        }
        Ok(results)
    }
}

fn first_error<'r>(batch: &[usize], results: &'r [VectorResult]) -> Option<(usize, &'r String)> {
    batch.iter().zip(results).find_map(|(entry, result)| Some((*entry, result.as_ref().err()?)))
}

fn decode(
    manifest: &Manifest,
    entries: &[Entry],
    batch: &[usize],
    processors: &BTreeMap<Modality, Arc<dyn Processor>>,
) -> SampleBatch {
    let source = |index: &usize| -> Option<&Source> {
        let Entry { row, value, modality } = &entries[*index];
        manifest.rows[*row].values.get(modality)?.get((*value)?)
    };
    let sources: Vec<&Source> = batch.iter().filter_map(source).collect();
    SampleBatch::read(processors[&entries[batch[0]].modality].as_ref(), &sources)
}

/// The rows of `[rows, dim]`.
fn to_rows(vectors: &Tensor, normalize: bool) -> Result<Vec<VectorResult>> {
    let vectors = if normalize { &vectors.normalize()? } else { vectors };
    let dim = vectors.size(-1)? as usize;
    Ok(vectors.to_vec::<f32>()?.chunks(dim.max(1)).map(|row| Ok(row.to_vec())).collect())
}
