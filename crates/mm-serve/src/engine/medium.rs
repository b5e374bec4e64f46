//! Images, recordings and videos of requests, decoded before the model's thread needs them.

use super::{batch::Cost, handle::ModelInfo, sample_cache::CachedSample};
use crate::{
    encode::{num_pixels, sample_of},
    error::ApiError,
    media::limited_recording,
};
use mm_core::{Modality, Processor, SendTensor, Source, Tensor};
use mm_reason::{EncodedMedia, Pipeline};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedSemaphorePermit;

/// A value of a request that is not decoded yet; errors name `param`.
#[derive(Clone)]
pub(crate) struct RawMedium {
    pub(crate) modality: Modality,
    pub(crate) source: Source,
    pub(crate) param: String,
}

/// A value of a request as a model takes it. What its model does not take is not decoded: the model refuses it.
pub(crate) struct Medium {
    modality: Modality,
    source: Source,
    param: String,
    pixels: usize,
    seconds: f64,
    /// For a checkpoint.
    sample: Option<CheckpointSample>,
    /// For a run.
    kept: Vec<CachedSample>,
    #[allow(dead_code, reason = "held for its drop")]
    permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// What the processor of a checkpoint made of a value. The answers of one request use it one after the other.
struct CheckpointSample {
    processor: Arc<dyn Processor>,
    tensor: Mutex<Option<SendTensor>>,
}

impl CheckpointSample {
    /// Sets the tensor, and returns the one that was there.
    fn replace(&self, tensor: Option<SendTensor>) -> Option<SendTensor> {
        std::mem::replace(&mut *self.tensor.lock().unwrap_or_else(PoisonError::into_inner), tensor)
    }
}

impl Medium {
    /// Decodes a value for a model, a recording up to `max_audio_seconds`. Called in the threads that decode. What is kept
    /// is the sample and the file: the waveform of a recording may be a thousand times as large as its file.
    ///
    /// # Errors
    /// When it cannot be decoded.
    pub(crate) fn decode(info: &ModelInfo, raw: RawMedium, max_audio_seconds: f64) -> Result<Self, ApiError> {
        let mut medium = Self::undecoded(raw);
        let mut decoded = medium.source.clone();
        if medium.modality == Modality::AUDIO {
            (decoded, medium.seconds) = limited_recording(decoded, &medium.param, max_audio_seconds)?;
        }
        if let Some(processor) = info.processors.get(&medium.modality) {
            let tensor = sample_of(processor.as_ref(), &decoded, &medium.param)?;
            medium.pixels = num_pixels(&medium.modality, &tensor);
            let tensor = Mutex::new(Some(tensor.into_send()?));
            medium.sample = Some(CheckpointSample { processor: processor.clone(), tensor });
        }
        for reader in info.sample_caches.get(&medium.modality).into_iter().flatten() {
            let kept = reader.keep(&medium.source, &decoded);
            let kept = kept.map_err(|error| ApiError::from(error).with_param(&medium.param))?;
            medium.kept.extend(kept);
        }
        Ok(medium)
    }

    /// A value that the model's thread decodes.
    pub(crate) fn undecoded(RawMedium { modality, source, param }: RawMedium) -> Self {
        Self { modality, source, param, pixels: 0, seconds: 0.0, sample: None, kept: Vec::new(), permit: None }
    }

    /// With a permit that is held for as long as the decoded value.
    pub(crate) fn with_permit(self, permit: Arc<OwnedSemaphorePermit>) -> Self {
        Self { permit: Some(permit), ..self }
    }

    /// The field of the request that errors name.
    pub(crate) fn param(&self) -> &str {
        &self.param
    }

    pub(crate) fn modality(&self) -> &Modality {
        &self.modality
    }

    /// The value for a run: a precomputed sample is used where the run asks its processors for it.
    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    pub(crate) fn cost(&self) -> Cost {
        Cost { rows: 1, tokens: 0, pixels: self.pixels, seconds: self.seconds }
    }

    /// As a checkpoint encodes it.
    pub(super) fn encode(&self, pipeline: &Pipeline) -> Result<EncodedMedia, ApiError> {
        let tensor = self.take(pipeline)?;
        let encoded = pipeline.encode_samples(&self.modality, std::slice::from_ref(&tensor));
        self.put_back(pipeline, tensor);
        Ok(encoded?)
    }

    /// The sample for a checkpoint, which is made again where the checkpoint was loaded again meanwhile.
    fn take(&self, pipeline: &Pipeline) -> Result<Tensor, ApiError> {
        let processor = pipeline.processor(&self.modality)?;
        match self.made_by(processor).and_then(|sample| sample.replace(None)) {
            Some(tensor) => Ok(tensor.into()),
            None => sample_of(processor.as_ref(), &self.source, &self.param),
        }
    }

    /// Keeps a sample for the other answers of the request.
    fn put_back(&self, pipeline: &Pipeline, tensor: Tensor) {
        let processor = pipeline.processor(&self.modality).ok();
        if let Some(sample) = processor.and_then(|processor| self.made_by(processor)) {
            sample.replace(tensor.into_send().ok());
        }
    }

    /// The sample of a processor.
    fn made_by(&self, processor: &Arc<dyn Processor>) -> Option<&CheckpointSample> {
        self.sample.as_ref().filter(|sample| Arc::ptr_eq(&sample.processor, processor))
    }
}

/// The images and videos of a conversation as a checkpoint encodes them; `None` where there are none.
pub(super) fn encode_conversation(pipeline: &Pipeline, media: &[Medium]) -> Result<Option<EncodedMedia>, ApiError> {
    let mut tensors = Vec::new();
    let taken = media.iter().try_for_each(|medium| medium.take(pipeline).map(|tensor| tensors.push(tensor)));
    let encoded = taken.and_then(|()| {
        let samples: Vec<(&Modality, &Tensor)> = media.iter().map(Medium::modality).zip(&tensors).collect();
        Ok(pipeline.encode_conversation_samples(&samples)?)
    });
    // Those that were taken before an error too.
    for (medium, tensor) in media.iter().zip(tensors) {
        medium.put_back(pipeline, tensor);
    }
    encoded
}
