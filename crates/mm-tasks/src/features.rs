//! Features of frozen encoders: computed once, cached on disk, read by the loader's workers.

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

/// A frozen encoder and its processor.
pub(crate) struct FrozenEncoder<'a> {
    pub(crate) encoder: &'a dyn Encoder,
    pub(crate) processor: &'a Arc<dyn Processor>,
    /// Changes whenever the features would.
    pub(crate) fingerprint: String,
    /// Augmented views of each value that are encoded next to the plain one.
    pub(crate) num_views: usize,
    /// Whether the features of each position are cached as well: a sample is then the vector and, below it, the positions `[1 + length, dim]`.
    pub(crate) positions: bool,
}

impl FrozenEncoder<'_> {
    /// Encodes the values that are not in the cache yet; returns the processor that reads features from there.
    pub(crate) fn encode_missing<'s>(
        &self,
        modality: &Modality,
        sources: impl Iterator<Item = &'s Source>,
        cache: &TensorCache,
        device: Device,
        stop: &AtomicBool,
        on_progress: ProgressFn<'_>,
    ) -> Result<CachedFeatures> {
        let mut features = CachedFeatures {
            cache: cache.clone(),
            fingerprint: self.fingerprint.clone(),
            num_views: self.num_views,
            positions: self.positions,
            errors: HashMap::new(),
        };
        let mut missing = Vec::new();
        for source in sources {
            for view in 0..=self.num_views {
                match features.key(source, view) {
                    Ok(key) if cache.get(&key).is_none() => missing.push((source, view, key)),
                    Ok(_) => {}
                    Err(error) => drop(features.errors.insert(format!("{source:?}"), error.to_string())),
                }
            }
        }
        // Texts of similar length together, so that there is little padding.
        missing.sort_by_key(|(source, view, _)| (if let Source::Text(t) = source { t.len() } else { 0 }, *view));
        missing.dedup_by(|a, b| a.2 == b.2);
        for (done, chunk) in missing.chunks(32).enumerate() {
            on_progress(&format!("encoding {modality}"), done * 32, missing.len());
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Config(format!(
                    "stopped after {} of {} values of {modality} were encoded; they are cached, and the next attempt continues from there",
                    done * 32,
                    missing.len()
                )));
            }
            let samples: Vec<_> = chunk
                .par_iter()
                .map(|(source, view, key)| {
                    // The key is a hash of source and view, so that each view of each value has its own random numbers.
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
                    Err(error) => drop(features.errors.insert(format!("{source:?}"), error.to_string())),
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
        Ok(features)
    }
}

/// The vector of a row and, below it, its unmasked positions: `[1 + length, dim]`.
fn with_positions(vector: &Tensor, positions: &Features, row: i64) -> Result<Tensor> {
    let mut own = positions.values.select(0, row)?.to_device(Device::Cpu)?;
    if let Some(mask) = &positions.mask {
        own = own.index_select(0, &mask.select(0, row)?.to_device(Device::Cpu)?.nonzero()?)?;
    }
    Ok(Tensor::cat(&[&vector.unsqueeze(0)?, &own], 0)?)
}

/// A processor that reads the features of a frozen encoder from the cache.
pub(crate) struct CachedFeatures {
    cache: TensorCache,
    fingerprint: String,
    num_views: usize,
    positions: bool,
    errors: HashMap<String, String>,
}

impl CachedFeatures {
    /// Whether these are the features of that encoder with so many views.
    pub(crate) fn matches(&self, fingerprint: &str, num_views: usize) -> bool {
        self.fingerprint == fingerprint && self.num_views == num_views && !self.positions
    }

    /// Adds the errors of other values.
    pub(crate) fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
    }

    fn key(&self, source: &Source, view: usize) -> mm_data::Result<CacheKey> {
        let what = if self.positions { "positions" } else { "features" };
        CacheKey::new(&format!("{what} {} view {view}", self.fingerprint), source)
    }
}

impl Processor for CachedFeatures {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        if let Some(error) = self.errors.get(&format!("{source:?}")) {
            return Err(mm_core::Error::Sample(error.clone()));
        }
        let view = if context.train { context.rng.below(self.num_views + 1) } else { 0 };
        let found = self.cache.get(&self.key(source, view)?);
        found.ok_or_else(|| mm_core::Error::Sample("its features were deleted from the cache while in use".into()))
    }

    fn is_sequence(&self) -> bool {
        self.positions
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
