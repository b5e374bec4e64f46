//! Decoding and embedding: values are read and decoded one batch ahead of the model.

use super::{embedder::Embedder, options::EmbedOptions};
use crate::{
    Error, Result,
    batch::{SampleBatch, SendSampleBatch},
};
use mm_core::{Modality, Processor, Source, Tensor};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

/// The vector of a value, or why there is none.
pub(super) type VectorResult = std::result::Result<Vec<f32>, String>;

/// Receives the vectors of a batch of values.
type Save<'a> = &'a mut dyn FnMut(&Modality, &[ValueKey], Vec<VectorResult>) -> Result<()>;

/// Values that are decoded together; their memory, not their number, is alike.
fn batch_size(modality: &Modality) -> usize {
    match modality.name() {
        "text" => 2048,
        "video" => 8,
        _ => 64,
    }
}

/// Which value a vector is of.
pub(super) struct ValueKey {
    /// Its number, as whoever gives values to be embedded counts them.
    pub(super) entry: usize,
    /// The id of its row.
    pub(super) id: String,
}

/// A batch of one modality on its way to the model.
struct Decoded {
    modality: Modality,
    keys: Vec<ValueKey>,
    samples: mm_core::Result<SendSampleBatch>,
}

/// Takes values one after the other, and decodes and sends them in batches of one modality each.
pub(super) struct Batches<'a> {
    processors: &'a BTreeMap<Modality, Arc<dyn Processor>>,
    sender: SyncSender<Decoded>,
    stop: &'a AtomicBool,
    modality: Modality,
    keys: Vec<ValueKey>,
    sources: Vec<Source>,
    /// Whether nothing more is wanted.
    is_stopped: bool,
}

impl Batches<'_> {
    /// Adds a value to the batch.
    ///
    /// # Errors
    /// When no more values are wanted.
    pub(super) fn push(&mut self, modality: &Modality, key: ValueKey, source: Source) -> Result<()> {
        if self.modality != *modality || self.keys.len() >= batch_size(modality) {
            self.send()?;
            self.modality = modality.clone();
        }
        self.keys.push(key);
        self.sources.push(source);
        Ok(())
    }

    /// # Errors
    /// When no more values are wanted.
    pub(super) fn check_wanted(&mut self) -> Result<()> {
        self.is_stopped |= self.stop.load(Ordering::Relaxed);
        if self.is_stopped {
            return Err(Error::Config("the embedding was stopped".into()));
        }
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let (keys, sources) = (std::mem::take(&mut self.keys), std::mem::take(&mut self.sources));
        let Some(processor) = self.processors.get(&self.modality) else {
            let known = super::names(self.processors.keys());
            return Err(Error::invalid("modality", &self.modality, format!("one that the model takes ({known})")));
        };
        let samples = SampleBatch::read(processor.as_ref(), &sources.iter().collect::<Vec<_>>()).into_send();
        // The receiver is dropped when the work ends early.
        self.is_stopped |= self.sender.send(Decoded { modality: self.modality.clone(), keys, samples }).is_err();
        self.check_wanted()
    }
}

/// Embeds values.
pub(super) struct Pipeline<'a> {
    pub(super) model: &'a dyn Embedder,
    pub(super) options: &'a EmbedOptions,
}

impl Pipeline<'_> {
    /// Embeds the values that `read` gives, in another thread, and saves each batch; returns whether it was stopped.
    pub(super) fn run(
        &self,
        read: impl FnOnce(&mut Batches<'_>) -> Result<()> + Send,
        stop: &AtomicBool,
        save: Save<'_>,
    ) -> Result<bool> {
        let mut processors = BTreeMap::new();
        for modality in self.model.modalities() {
            let processor = self.model.processor(&modality)?;
            processors.insert(modality, processor);
        }
        let processors = &processors;
        std::thread::scope(|scope| {
            let (sender, receiver) = sync_channel(1);
            let reader = scope.spawn(move || {
                let (keys, sources, modality) = (Vec::new(), Vec::new(), Modality::TEXT);
                let mut batches = Batches { processors, sender, stop, modality, keys, sources, is_stopped: false };
                let read = read(&mut batches).and_then(|()| batches.send());
                if batches.is_stopped { Ok(true) } else { read.map(|()| false) }
            });
            let embedded = self.embed_batches(&receiver, stop, save);
            drop(receiver);
            let ended = |_| Error::Config("the decoding thread ended before its work was done".into());
            let read = reader.join().map_err(ended)?;
            Ok(embedded? || read?)
        })
    }

    /// Embeds batches until there are no more; returns whether it was stopped.
    fn embed_batches(&self, batches: &Receiver<Decoded>, stop: &AtomicBool, save: Save<'_>) -> Result<bool> {
        for Decoded { modality, keys, samples } in batches {
            if stop.load(Ordering::Relaxed) {
                return Ok(true);
            }
            let vectors = self.embed(&modality, &keys, samples?.into())?;
            save(&modality, &keys, vectors)?;
        }
        Ok(false)
    }

    /// The vectors of a decoded batch.
    fn embed(&self, modality: &Modality, keys: &[ValueKey], decoded: SampleBatch) -> Result<Vec<VectorResult>> {
        let SampleBatch { indices, samples, failed } = decoded;
        let mut results: Vec<VectorResult> = vec![Err("the model returned no vector".into()); keys.len()];
        for (index, error) in failed {
            results[index] = Err(error.to_string());
        }
        if !samples.is_empty() {
            let vectors = self.model.embed_samples(modality, &samples, self.options.pooling)?;
            for (index, vector) in indices.into_iter().zip(to_rows(&vectors, self.options.normalize)?) {
                results[index] = vector;
            }
        }
        if let (true, Some((id, reason))) = (self.options.fail_on_error, first_error(keys, &results)) {
            return Err(Error::Core(mm_core::Error::Sample(format!("{id}: {reason}"))));
        }
        Ok(results)
    }
}

fn first_error<'r>(keys: &'r [ValueKey], results: &'r [VectorResult]) -> Option<(&'r String, &'r String)> {
    keys.iter().zip(results).find_map(|(key, result)| Some((&key.id, result.as_ref().err()?)))
}

/// The rows of `[rows, dim]`.
fn to_rows(vectors: &Tensor, normalize: bool) -> Result<Vec<VectorResult>> {
    let vectors = if normalize { &vectors.normalize()? } else { vectors };
    let dim = vectors.size(-1)? as usize;
    Ok(vectors.to_vec::<f32>()?.chunks(dim.max(1)).map(|row| Ok(row.to_vec())).collect())
}
