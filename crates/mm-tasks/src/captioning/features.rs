//! The input features of a captioner: those of a frozen encoder are computed once and held in memory where they fit.

use super::model::Captioning;
use crate::{Error, ProgressFn, Result, batch::SampleBatch};
use mm_core::{Device, ProcessContext, Processor, Source, Tensor, no_grad};
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

/// Features of a frozen encoder by source.
#[derive(Default)]
struct InMemoryFeatures {
    features: HashMap<String, Vec<f32>>,
    shape: Vec<i64>,
    errors: HashMap<String, String>,
}

impl Processor for InMemoryFeatures {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let key = format!("{source:?}");
        match (self.features.get(&key), self.errors.get(&key)) {
            (Some(values), _) => Tensor::from_vec(values, &self.shape),
            (None, Some(error)) => Err(mm_core::Error::Sample(error.clone())),
            (None, None) => Err(mm_core::Error::Sample(format!("{key}: its features were not computed"))),
        }
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("in-memory features {:?}", self.shape)
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
        let mut out = InMemoryFeatures::default();
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
            let features = no_grad(|| self.encode(&input, false, false))?.to_device(Device::Cpu)?;
            out.shape = features.shape()[1..].to_vec();
            let size = out.shape.iter().product::<i64>() as usize;
            if size * size_of::<f32>() * sources.len() > MAX_BYTES {
                return Ok(cached());
            }
            let values = features.to_vec::<f32>()?;
            let rows = batch.indices.iter().zip(values.chunks(size.max(1)));
            out.features.extend(rows.map(|(index, values)| (format!("{:?}", chunk[*index]), values.to_vec())));
        }
        on_progress(&label, sources.len(), sources.len());
        Ok(InputFeatures { processor: Arc::new(out), precomputed: true })
    }
}
