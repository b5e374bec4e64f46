//! The input features of a captioner: those of a frozen encoder are computed once and held in memory where they fit.

use super::model::Captioning;
use crate::{Error, ProgressFn, Result, batch::SampleBatch};
use mm_core::{Device, Features, ProcessContext, Processor, Source, Tensor, no_grad};
use mm_data::{CachedProcessor, Manifest};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Features that are held in memory take at most this many bytes.
const MAX_BYTES: usize = 2 << 30;

/// Values that are encoded together.
const BATCH_SIZE: usize = 32;

/// The processor of the input modality.
pub(super) struct InputFeatures {
    pub(super) processor: Arc<dyn Processor>,
    /// Whether its samples are precomputed features rather than the encoder's inputs.
    pub(super) precomputed: bool,
}

/// Features of a frozen encoder by source, `[positions, dim]` without padding.
#[derive(Default)]
struct InMemoryFeatures {
    features: HashMap<String, Vec<f32>>,
    dim: i64,
    errors: HashMap<String, String>,
}

impl Processor for InMemoryFeatures {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let key = format!("{source:?}");
        match (self.features.get(&key), self.errors.get(&key)) {
            (Some(values), _) => Tensor::from_vec(values, &[values.len() as i64 / self.dim.max(1), self.dim]),
            (None, Some(error)) => Err(mm_core::Error::Sample(error.clone())),
            (None, None) => Err(mm_core::Error::Sample(format!("{key}: its features were not computed"))),
        }
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("in-memory features {}", self.dim)
    }
}

impl Captioning {
    /// Prepares the input modality of a data set: features in memory where the encoder is frozen and they fit, else
    /// cached samples, which are encoded batch by batch.
    pub(super) fn input_features(
        &self,
        manifest: &Manifest,
        stop: &AtomicBool,
        on_progress: ProgressFn<'_>,
    ) -> Result<InputFeatures> {
        let processor = &self.input.processor;
        let cached = || InputFeatures {
            processor: Arc::new(CachedProcessor::new(processor.clone(), self.cache.clone())),
            precomputed: false,
        };
        if !self.input.frozen {
            return Ok(cached());
        }
        // All values of a row: the loader samples one of them.
        let mut sources: Vec<&Source> =
            manifest.rows.iter().flat_map(|r| r.values.get(&self.modality).into_iter().flatten()).collect();
        sources.sort_by_key(|s| format!("{s:?}"));
        sources.dedup();
        let label = format!("encoding {}", self.modality);
        let (mut out, mut bytes) = (InMemoryFeatures::default(), 0);
        for (n, chunk) in sources.chunks(BATCH_SIZE).enumerate() {
            on_progress(&label, n * BATCH_SIZE, sources.len());
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Config("stopped while encoding, before training".into()));
            }
            let batch = SampleBatch::read(processor.as_ref(), chunk);
            let failed = batch.failed.iter().map(|(index, e)| (format!("{:?}", chunk[*index]), e.to_string()));
            out.errors.extend(failed);
            let Some(input) = batch.collate(processor.as_ref())? else { continue };
            let input = input.to_device(self.params.device())?;
            let features = no_grad(|| self.encode(&input, false, false))?;
            out.dim = features.dim()?;
            for (index, values) in batch.indices.iter().zip(unpadded(&features)?) {
                bytes += values.len() * size_of::<f32>();
                out.features.insert(format!("{:?}", chunk[*index]), values);
            }
            if bytes / out.features.len().max(1) * sources.len() > MAX_BYTES {
                return Ok(cached());
            }
        }
        on_progress(&label, sources.len(), sources.len());
        Ok(InputFeatures { processor: Arc::new(out), precomputed: true })
    }
}

/// The values of each row's valid positions, one position after the other.
fn unpadded(features: &Features) -> Result<Vec<Vec<f32>>> {
    let [rows, length, dim] = [0, 1, 2].map(|axis| features.values.size(axis));
    let (rows, length, dim) = (rows? as usize, length? as usize, dim? as usize);
    let values = features.values.to_device(Device::Cpu)?.to_vec::<f32>()?;
    let mask = features.mask.as_ref().map(|m| m.to_device(Device::Cpu)?.to_vec::<bool>()).transpose()?;
    let is_valid = |position: &usize| mask.as_ref().is_none_or(|m| m[*position]);
    let row = |row: usize| {
        let valid = (row * length..(row + 1) * length).filter(is_valid);
        valid.flat_map(|position| &values[position * dim..(position + 1) * dim]).copied().collect()
    };
    Ok((0..rows).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_data::collate;

    #[test]
    fn features_of_different_lengths_are_kept_without_padding_and_masked_in_a_batch() {
        let values = Tensor::from_vec(&(0..12).map(|v| v as f32).collect::<Vec<_>>(), &[2, 3, 2]).unwrap();
        let mask = Tensor::from_vec(&[true, true, true, true, false, false], &[2, 3]).unwrap();
        let rows = unpadded(&Features::new(values, Some(mask)).unwrap()).unwrap();
        assert_eq!(rows, [vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], vec![6.0, 7.0]]);
        let source = |n: usize| Source::Text(n.to_string());
        let features = rows.into_iter().enumerate().map(|(n, values)| (format!("{:?}", source(n)), values)).collect();
        let held = InMemoryFeatures { features, dim: 2, errors: HashMap::new() };
        let sample = |n| held.process(&source(n), &mut ProcessContext::eval()).unwrap();
        let input = collate(&[sample(1), sample(0)], &held).unwrap();
        assert_eq!(input.values.to_vec::<f32>().unwrap(), [6., 7., 0., 0., 0., 0., 0., 1., 2., 3., 4., 5.]);
        let mask = input.mask.unwrap().to_vec::<bool>().unwrap();
        assert_eq!(mask, [true, false, false, true, true, true]);
    }
}
