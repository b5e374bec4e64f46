//! Features of frozen encoders: made once, kept in the cache, read by the loader's workers.

use crate::{Error, ProgressFn, Result};
use mm_core::{Device, Encoder, Features, Modality, ProcessContext, Processor, Source, Tensor, no_grad, seed::Rng};
use mm_data::{CacheKey, TensorCache, collate};
use rayon::prelude::*;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A frozen encoder and what stands before it.
pub(crate) struct Frozen<'a> {
    pub(crate) encoder: &'a dyn Encoder,
    pub(crate) processor: &'a Arc<dyn Processor>,
    /// Changes whenever the features would.
    pub(crate) fingerprint: String,
    /// Augmented views of each sample beside the plain one.
    pub(crate) views: usize,
    /// Whether each position's features are kept as well: a sample is then the vector and, below it, the positions `[1 + length, width]`.
    pub(crate) positions: bool,
}

impl Frozen<'_> {
    /// Encodes what is not yet in the cache; the processor that reads it from there comes back.
    pub(crate) fn keep<'s>(
        &self,
        modality: &Modality,
        sources: impl Iterator<Item = &'s Source>,
        cache: &TensorCache,
        device: Device,
        stop: &AtomicBool,
        on_progress: ProgressFn<'_>,
    ) -> Result<Kept> {
        let mut kept = Kept {
            cache: cache.clone(),
            fingerprint: self.fingerprint.clone(),
            views: self.views,
            positions: self.positions,
            problems: HashMap::new(),
        };
        let mut missing = Vec::new();
        for source in sources {
            for view in 0..=self.views {
                match kept.key(source, view) {
                    Ok(key) if cache.get(&key).is_none() => missing.push((source, view, key)),
                    Ok(_) => {}
                    Err(error) => drop(kept.problems.insert(format!("{source:?}"), error.to_string())),
                }
            }
        }
        // Texts of about one length together, so that little padding is encoded.
        missing.sort_by_key(|(source, view, _)| (if let Source::Text(t) = source { t.len() } else { 0 }, *view));
        missing.dedup_by(|a, b| a.2 == b.2);
        for (done, chunk) in missing.chunks(32).enumerate() {
            on_progress(&format!("encoding {modality}"), done * 32, missing.len());
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Config(format!(
                    "stopped after {} of {} values of {modality} were encoded; these are kept, so that the next attempt goes on from there",
                    done * 32,
                    missing.len()
                )));
            }
            let samples: Vec<_> = chunk
                .par_iter()
                .map(|(source, view, key)| {
                    // The key is a hash of source and view: each view of each picture draws its own.
                    let random = Rng::new(&[key.seed()]);
                    self.processor.process(source, &mut ProcessContext { train: *view > 0, rng: random })
                })
                .collect();
            let (mut good, mut keys) = (Vec::new(), Vec::new());
            for ((source, _, key), sample) in chunk.iter().zip(samples) {
                match sample {
                    Ok(sample) => {
                        good.push(sample);
                        keys.push(key);
                    }
                    Err(error) => drop(kept.problems.insert(format!("{source:?}"), error.to_string())),
                }
            }
            if good.is_empty() {
                continue;
            }
            let input = collate(&good, self.processor.as_ref())?.to_device(device)?;
            let (positions, vectors) = no_grad(|| -> Result<_> {
                Ok(if self.positions {
                    let (positions, vectors) = self.encoder.encode_and_embed(&input, false)?;
                    (Some(positions), vectors)
                } else {
                    (None, self.encoder.embed(&input, false)?)
                })
            })?;
            let vectors = vectors.to_device(Device::Cpu)?;
            for (row, key) in keys.into_iter().enumerate() {
                let vector = vectors.select(0, row as i64)?;
                match &positions {
                    Some(positions) => cache.put(key, &with_positions(&vector, positions, row as i64)?)?,
                    None => cache.put(key, &vector)?,
                }
            }
        }
        on_progress(&format!("encoding {modality}"), missing.len(), missing.len());
        Ok(kept)
    }
}

/// The vector of a row and, below it, its positions that count.
fn with_positions(vector: &Tensor, positions: &Features, row: i64) -> Result<Tensor> {
    let mut own = positions.values.select(0, row)?.to_device(Device::Cpu)?;
    if let Some(mask) = &positions.mask {
        own = own.index_select(0, &mask.select(0, row)?.to_device(Device::Cpu)?.nonzero()?)?;
    }
    Ok(Tensor::cat(&[&vector.unsqueeze(0)?, &own], 0)?)
}

/// Features of a frozen encoder, kept in the cache.
pub(crate) struct Kept {
    cache: TensorCache,
    fingerprint: String,
    views: usize,
    positions: bool,
    problems: HashMap<String, String>,
}

impl Kept {
    /// What features these are: others cannot stand in for them.
    pub(crate) fn is_of(&self, fingerprint: &str, views: usize) -> bool {
        self.fingerprint == fingerprint && self.views == views && !self.positions
    }

    /// Adds what could not be read among other values.
    pub(crate) fn add(&mut self, other: Self) {
        self.problems.extend(other.problems);
    }

    fn key(&self, source: &Source, view: usize) -> mm_data::Result<CacheKey> {
        let what = if self.positions { "positions" } else { "features" };
        CacheKey::new(&format!("{what} {} view {view}", self.fingerprint), source)
    }
}

impl Processor for Kept {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        if let Some(problem) = self.problems.get(&format!("{source:?}")) {
            return Err(mm_core::Error::Sample(problem.clone()));
        }
        let view = if context.train { context.rng.below(self.views + 1) } else { 0 };
        let found = self.cache.get(&self.key(source, view)?);
        found.ok_or_else(|| {
            mm_core::Error::Sample("its features were deleted from the cache while they were in use".into())
        })
    }

    fn is_sequence(&self) -> bool {
        self.positions
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
