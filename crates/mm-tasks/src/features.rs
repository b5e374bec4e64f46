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
    /// The processor.
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
        let total = missing.iter().map(Vec::len).sum();
        let progress = format!("encoding {modality}");
        let mut done = 0;
        for values in &missing {
            on_progress(&progress, done, total);
            if resources.stop.load(Ordering::Relaxed) {
                return Err(Error::Stopped {
                    what: format!("encoding {modality}"),
                    done,
                    total,
                    hint: "the encoded values are cached, and the same command continues from there",
                });
            }
            self.encode_batch(values, resources.device, &mut features)?;
            done += values.len();
        }
        on_progress(&progress, total, total);
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

/// Which values are encoded together, given which are in the cache.
///
/// An interrupted command leaves the last batch that it began incomplete. All of that batch is encoded again, and the
/// batches after it are those of an uninterrupted command, so that the features are the same bit for bit: rounding
/// differs between batches. What is missing before it failed, or was added to the table since; it makes batches of its
/// own.
fn batches_to_encode(is_cached: &[bool]) -> Vec<Vec<usize>> {
    let begun = is_cached.iter().rposition(|cached| *cached).map_or(0, |last| last / BATCH_SIZE * BATCH_SIZE);
    let before: Vec<usize> = (0..begun).filter(|i| !is_cached[*i]).collect();
    let rest: Vec<usize> = (begun..is_cached.len()).collect();
    let is_incomplete = |batch: &&[usize]| batch.iter().any(|i| !is_cached[*i]);
    before.chunks(BATCH_SIZE).chain(rest.chunks(BATCH_SIZE).filter(is_incomplete)).map(<[usize]>::to_vec).collect()
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

    /// Batches with the views of values that are not in the cache yet, texts of similar length together, so that there
    /// is little padding.
    fn missing<'s>(&mut self, sources: impl Iterator<Item = &'s Source>) -> Vec<Vec<Missing<'s>>> {
        let mut values = Vec::new();
        for source in sources {
            for view in 0..=self.num_views {
                match self.key(source, view) {
                    Ok(key) => values.push((source, view, key)),
                    Err(error) => self.add_error(source, &error),
                }
            }
        }
        values.sort_by_key(|(source, view, _)| (if let Source::Text(t) = source { t.len() } else { 0 }, *view));
        values.dedup_by(|a, b| a.2 == b.2);
        let is_cached: Vec<bool> = values.iter().map(|(_, _, key)| self.cache.get(key).is_some()).collect();
        batches_to_encode(&is_cached)
            .into_iter()
            .map(|batch| batch.into_iter().map(|i| values[i].clone()).collect())
            .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_batch_is_encoded_again_from_its_start() {
        let batches = |cached: &[usize], length: usize| {
            let is_cached: Vec<bool> = (0..length).map(|i| cached.contains(&i)).collect();
            batches_to_encode(&is_cached)
        };
        let range = |from: usize, to: usize| (from..to).collect::<Vec<_>>();
        assert_eq!(batches(&[], 70), [range(0, 32), range(32, 64), range(64, 70)]);
        assert_eq!(batches(&range(0, 40), 70), [range(32, 64), range(64, 70)]);
        assert_eq!(batches(&range(0, 64), 70), [range(64, 70)]);
        assert!(batches(&range(0, 70), 70).is_empty() && batches(&[], 0).is_empty());
        // A value that cannot be read is missing each time.
        let mut cached = range(0, 40);
        cached.remove(5);
        assert_eq!(batches(&cached, 70), [vec![5], range(32, 64), range(64, 70)]);
    }
}
