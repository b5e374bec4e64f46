//! Samples of a request, encoded in batches with those of other requests.

use crate::{
    cancellation::Cancellation,
    engine::{Cost, EncodeJob, ModelHandle, Output},
    error::ApiError,
    media::{MediaTotals, limited_recording},
};
use mm_core::{Modality, ProcessContext, Processor, SendTensor, Source, Tensor};
use mm_data::{process_catching_panics, take_truncated};
use rayon::prelude::*;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Rows of one job: a long request is divided, so that its parts are batched by length.
const MAX_JOB_ROWS: usize = 64;
/// Values of a pixel.
const CHANNELS: usize = 3;

/// A sample on its way to the model.
pub(crate) struct Sample {
    /// The place of its input in the request.
    pub(crate) index: usize,
    /// Its number of tokens or frames; 1 where samples are not sequences.
    pub(crate) length: usize,
    /// Pixels of an image, or of all frames of a video.
    pub(crate) pixels: usize,
    /// Seconds of the recording that it is made of.
    pub(crate) seconds: f64,
    pub(crate) tensor: SendTensor,
}

/// What becomes of a text that is longer than the model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LongTexts {
    /// It is cut.
    Cut,
    /// It is refused as too large, unless the request has `"truncate": true`.
    Refuse,
    /// It is refused as OpenAI and vLLM refuse it, unless the request has `"truncate_prompt_tokens": -1`.
    RefuseAsContextLength,
}

impl LongTexts {
    /// The error of the text at `param`, which is in the field `field`, where the model takes up to `limit`.
    fn refusal(self, field: &str, param: &str, limit: &str) -> Option<ApiError> {
        const FOUND: &str = "a longer text than the model takes";
        match self {
            Self::Cut => None,
            Self::Refuse => {
                let expected = format!("at most {limit}, or \"truncate\": true");
                Some(ApiError::too_large(param, FOUND, expected))
            }
            Self::RefuseAsContextLength => {
                let expected = format!("at most {limit}, or \"truncate_prompt_tokens\": -1");
                let error = ApiError::invalid(param, FOUND, expected);
                Some(error.with_param(field).with_code("context_length_exceeded"))
            }
        }
    }
}

/// How values of one modality become samples, in the threads that decode.
pub(crate) struct Processing {
    pub(crate) processor: Arc<dyn Processor>,
    pub(crate) modality: Modality,
    /// The field of the request that errors name.
    pub(crate) field: String,
    pub(crate) long_texts: LongTexts,
    /// Seconds of a recording.
    pub(crate) max_audio_seconds: f64,
    /// Of all values of the request.
    pub(crate) totals: Arc<MediaTotals>,
}

impl Processing {
    /// Samples of sources, read in parallel. Called in the threads that decode.
    ///
    /// # Errors
    /// When one of them cannot be read or is too long, or the request is cancelled.
    pub(crate) fn run(
        &self,
        sources: Vec<(usize, Source)>,
        cancellation: Cancellation<'_>,
    ) -> Result<Vec<Sample>, ApiError> {
        // The only one of its modality may be one of several inputs.
        let single = matches!(sources.as_slice(), [(0, _)]);
        let sample = |(index, source): (usize, Source)| {
            let param = if single { self.field.clone() } else { format!("{}[{index}]", self.field) };
            self.sample(index, source, &param, cancellation)
        };
        if single {
            return sources.into_iter().map(sample).collect();
        }
        sources.into_par_iter().map(sample).collect()
    }

    fn sample(
        &self,
        index: usize,
        source: Source,
        param: &str,
        cancellation: Cancellation<'_>,
    ) -> Result<Sample, ApiError> {
        cancellation.check()?;
        let (source, seconds) = if self.modality == Modality::AUDIO {
            limited_recording(source, param, self.max_audio_seconds)?
        } else {
            (source, 0.0)
        };
        self.totals.add(0, seconds, param)?;
        cancellation.check()?;
        take_truncated();
        let tensor = sample_of(self.processor.as_ref(), &source, param)?;
        let cut_at = take_truncated().filter(|_| self.modality == Modality::TEXT);
        if let Some(error) = cut_at.and_then(|limit| self.long_texts.refusal(&self.field, param, &limit)) {
            return Err(error);
        }
        let is_sequence = self.modality == Modality::TEXT || self.processor.is_sequence();
        let length = if is_sequence { tensor.size(0)? as usize } else { 1 };
        let pixels = num_pixels(&self.modality, &tensor);
        self.totals.add(pixels, 0.0, param)?;
        Ok(Sample { index, length, pixels, seconds, tensor: tensor.into_send()? })
    }
}

/// What a processor makes of a source; errors name `param`. Called in the threads that decode.
pub(crate) fn sample_of(processor: &dyn Processor, source: &Source, param: &str) -> Result<Tensor, ApiError> {
    let sample = process_catching_panics(processor, source, &mut ProcessContext::eval());
    sample.map_err(|error| ApiError::from(error).with_param(param))
}

/// Pixels of the sample of an image, or of all frames of a video; 0 of other modalities.
pub(crate) fn num_pixels(modality: &Modality, sample: &Tensor) -> usize {
    if [Modality::IMAGE, Modality::VIDEO].contains(modality) { sample.numel() / CHANNELS } else { 0 }
}

/// Samples that wait for the model: their places in the request, and their rows.
pub(crate) type Pending = Vec<(Vec<usize>, oneshot::Receiver<Result<Vec<Vec<f32>>, ApiError>>)>;

/// Has samples encoded, which were made by a processor of the model of `generation`.
pub(crate) fn submit(
    model: &ModelHandle,
    generation: u64,
    (modality, output): (&Modality, Output),
    mut samples: Vec<Sample>,
) -> Result<Pending, ApiError> {
    samples.sort_by_key(|sample| sample.length);
    let mut pending = Vec::new();
    while !samples.is_empty() {
        let rest = samples.split_off(samples.len().min(MAX_JOB_ROWS));
        let part = std::mem::replace(&mut samples, rest);
        let cost = part.iter().map(cost_of).fold(Cost::default(), Cost::with);
        let (indices, samples) = part.into_iter().map(|sample| (sample.index, sample.tensor)).unzip();
        let modality = modality.clone();
        let job = |reply| EncodeJob { modality, output, samples, generation, cost, reply };
        pending.push((indices, model.submit(job)?));
    }
    Ok(pending)
}

fn cost_of(sample: &Sample) -> Cost {
    Cost { rows: 1, tokens: sample.length, pixels: sample.pixels, seconds: sample.seconds }
}

/// The rows of all samples, in the order of the inputs.
pub(crate) async fn rows(pending: Pending) -> Result<Vec<Vec<f32>>, ApiError> {
    let mut rows = Vec::new();
    for (indices, answer) in pending {
        let found = answer.await.map_err(|_| ApiError::internal("the model's thread gave no rows"))??;
        rows.extend(indices.into_iter().zip(found));
    }
    rows.sort_by_key(|(index, _)| *index);
    Ok(rows.into_iter().map(|(_, row)| row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Limits, error::Kind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Counts the values that it is asked for.
    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Processor for Counting {
        fn process(&self, _: &Source, _: &mut ProcessContext) -> mm_core::Result<Tensor> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Tensor::from_slice(&[1_i64])
        }

        fn is_sequence(&self) -> bool {
            false
        }

        fn fingerprint(&self) -> String {
            "counting".into()
        }
    }

    #[test]
    fn processing_ends_once_the_request_is_cancelled() {
        let processor = Arc::new(Counting::default());
        let processing = Processing {
            processor: processor.clone(),
            modality: Modality::TEXT,
            field: "input".into(),
            long_texts: LongTexts::Cut,
            max_audio_seconds: 1.0,
            totals: Arc::new(MediaTotals::new(&Limits::default())),
        };
        let sources: Vec<_> = (0..10).map(|index| (index, Source::Text("a".into()))).collect();
        // In one thread: others may be between a check and the processor.
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let run = |limit: usize| {
            let is_cancelled = || processor.0.load(Ordering::SeqCst) >= limit;
            pool.install(|| processing.run(sources.clone(), Cancellation::new(&is_cancelled)))
        };
        assert!(run(3).is_err_and(|error| error.message().contains("disconnected")));
        assert_eq!(processor.0.swap(0, Ordering::SeqCst), 3);
        assert_eq!(run(usize::MAX).map(|samples| samples.len()).unwrap(), 10);
        assert_eq!(processor.0.load(Ordering::SeqCst), 10);
    }

    #[test]
    fn a_long_text_is_refused_with_the_option_of_its_route() {
        let refusal = |long_texts: LongTexts| long_texts.refusal("input", "input[2]", "8 tokens");
        assert!(refusal(LongTexts::Cut).is_none());
        for (long_texts, kind, param, option) in [
            (LongTexts::Refuse, Kind::TooLarge, "input[2]", "at most 8 tokens, or \"truncate\": true"),
            (LongTexts::RefuseAsContextLength, Kind::Invalid, "input", "or \"truncate_prompt_tokens\": -1"),
        ] {
            let error = refusal(long_texts).unwrap();
            assert!(error.message().starts_with("input[2]: found a longer text") && error.message().ends_with(option));
            assert_eq!((error.kind, &error.body()["error"]["param"]), (kind, &serde_json::json!(param)));
        }
    }
}
