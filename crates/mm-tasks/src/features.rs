//! Features of frozen encoders: computed once, cached on disk, read by the loader's workers.

use crate::{Error, ProgressFn, Result};
use mm_core::{
    Device, Encoder, Features, Modality, ProcessContext, Processor, Source, Tensor, no_grad, parallel_tensors,
    seed::Rng,
};
use mm_data::{CacheKey, TensorCache, collate};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Values that are encoded together.
const BATCH_SIZE: usize = 32;

/// Where features are computed and cached, and the flag that stops it.
pub(crate) struct Resources<'a> {
    /// The cache.
    pub(crate) cache: &'a TensorCache,
    /// The device of the encoders.
    pub(crate) device: Device,
    /// Set from outside to stop.
    pub(crate) stop: &'a AtomicBool,
}

/// A frozen encoder and its processor.
pub(crate) struct FrozenEncoder<'a> {
    /// The encoder.
    pub(crate) encoder: &'a dyn Encoder,
    /// Its processor.
    pub(crate) processor: &'a Arc<dyn Processor>,
    /// Changes whenever the features would.
    pub(crate) fingerprint: String,
    /// Augmented views of each value that are encoded next to the plain one.
    pub(crate) num_views: usize,
    /// Whether the features of each position are cached as well: a sample is then the vector and, below it, the
    /// positions `[1 + length, dim]`.
    pub(crate) positions: bool,
}

/// A value to encode: its source, its view, and its key in the cache.
type Missing<'s> = (&'s Source, usize, CacheKey);

impl FrozenEncoder<'_> {
    /// Encodes the values that are not in the cache yet; returns the processor that reads features from there.
    ///
    /// # Errors
    /// When it was stopped; what was encoded by then is cached.
    pub(crate) fn encode_missing<'s>(
        &self,
        modality: &Modality,
        sources: impl Iterator<Item = &'s Source>,
        resources: &Resources<'_>,
        on_progress: ProgressFn<'_>,
    ) -> Result<CachedFeatures> {
        let mut features = CachedFeatures {
            cache: resources.cache.clone(),
            fingerprint: self.fingerprint.clone(),
            num_views: self.num_views,
            positions: self.positions,
            errors: HashMap::new(),
        };
        let missing = features.missing(sources);
        let progress = format!("encoding {modality}");
        for (batch, values) in missing.chunks(BATCH_SIZE).enumerate() {
            let done = batch * BATCH_SIZE;
            on_progress(&progress, done, missing.len());
            if resources.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped {
                    what: format!("encoding {modality}"),
                    done,
                    total: missing.len(),
                    hint: "the encoded values are cached, and the same command continues from there",
                });
            }
            self.encode_batch(values, resources.device, &mut features)?;
        }
        on_progress(&progress, missing.len(), missing.len());
        Ok(features)
    }

    /// Encodes values into the cache; values that cannot be read are added to the errors.
    fn encode_batch(&self, values: &[Missing<'_>], device: Device, features: &mut CachedFeatures) -> Result<()> {
        let process = |(source, view, key): &Missing<'_>| {
            // The key is a hash of source and view, so that each view of each value has its own random numbers.
            let rng = Rng::new(&[key.seed()]);
            self.processor.process(source, &mut ProcessContext { train: *view > 0, rng })
        };
        let processed = parallel_tensors(values, process);
        let (mut samples, mut keys) = (Vec::new(), Vec::new());
        for ((source, _, key), sample) in values.iter().zip(processed) {
            match sample {
                Ok(sample) => {
                    samples.push(sample);
                    keys.push(key);
                }
                Err(error) => features.add_error(source, &error),
            }
        }
        if samples.is_empty() {
            return Ok(());
        }
        let input = collate(&samples, self.processor.as_ref())?.to_device(device)?;
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
                Some(positions) => features.cache.put(key, &with_positions(&vector, positions, row as i64)?)?,
                None => features.cache.put(key, &vector)?,
            }
        }
        Ok(())
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
    /// Errors of the values that could not be read, by [`error_key`].
    errors: HashMap<String, String>,
}

/// Identifies a source in [`CachedFeatures::errors`].
fn error_key(source: &Source) -> String {
    format!("{source:?}")
}

impl CachedFeatures {
    /// Whether these are the features of this encoder.
    pub(crate) fn are_of(&self, encoder: &FrozenEncoder<'_>) -> bool {
        self.fingerprint == encoder.fingerprint
            && self.num_views == encoder.num_views
            && self.positions == encoder.positions
    }

    /// Adds the errors of other values.
    pub(crate) fn merge(&mut self, other: Self) {
        self.errors.extend(other.errors);
    }

    fn add_error(&mut self, source: &Source, error: &dyn std::fmt::Display) {
        self.errors.insert(error_key(source), error.to_string());
    }

    /// The views of values that are not in the cache yet, texts of similar length together, so that there is little
    /// padding.
    fn missing<'s>(&mut self, sources: impl Iterator<Item = &'s Source>) -> Vec<Missing<'s>> {
        let mut missing = Vec::new();
        for source in sources {
            for view in 0..=self.num_views {
                match self.key(source, view) {
                    Ok(key) if self.cache.get(&key).is_none() => missing.push((source, view, key)),
                    Ok(_) => {}
                    Err(error) => self.add_error(source, &error),
                }
            }
        }
        missing.sort_by_key(|(source, view, _)| (if let Source::Text(t) = source { t.len() } else { 0 }, *view));
        missing.dedup_by(|a, b| a.2 == b.2);
        missing
    }

    fn key(&self, source: &Source, view: usize) -> mm_data::Result<CacheKey> {
        let what = if self.positions { "positions" } else { "features" };
        CacheKey::new(&format!("{what} {} view {view}", self.fingerprint), source)
    }
}

impl Processor for CachedFeatures {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        if let Some(error) = self.errors.get(&error_key(source)) {
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
