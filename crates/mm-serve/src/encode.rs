//! Samples of a request, encoded in batches with those of other requests.

use crate::{
    engine::{EncodeJob, ModelHandle, Output},
    error::ApiError,
};
use mm_core::{Modality, ProcessContext, Processor, SendTensor, Source};
use mm_data::{process_catching_panics, take_truncated};
use rayon::prelude::*;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Rows of one job: a long request is divided, so that its parts are batched by length.
const MAX_JOB_ROWS: usize = 64;

/// A sample on its way to the model.
pub(crate) struct Sample {
    /// The place of its input in the request.
    pub(crate) index: usize,
    /// Its number of tokens or frames; 1 where samples are not sequences.
    pub(crate) length: usize,
    pub(crate) tensor: SendTensor,
}

/// Samples of sources of one modality, read in parallel; errors name `field`. Texts that are longer than the model takes
/// are refused unless `truncates`. Called in the threads that decode.
pub(crate) fn process(
    processor: &Arc<dyn Processor>,
    sources: Vec<(usize, Source)>,
    (modality, truncates): (&Modality, bool),
    field: &str,
) -> Result<Vec<Sample>, ApiError> {
    // The only one of its modality may be one of several inputs.
    let single = matches!(sources.as_slice(), [(0, _)]);
    let is_sequence = *modality == Modality::TEXT || processor.is_sequence();
    let process = |(index, source): (usize, Source)| -> Result<Sample, ApiError> {
        let param = if single { field.to_owned() } else { format!("{field}[{index}]") };
        take_truncated();
        let tensor = process_catching_panics(processor.as_ref(), &source, &mut ProcessContext::eval());
        let tensor = tensor.map_err(|error| ApiError::from(error).with_param(&param))?;
        let cut = take_truncated().filter(|_| *modality == Modality::TEXT && !truncates);
        if let Some(limit) = cut {
            let expected = format!("at most {limit}, or \"truncate\": true");
            return Err(ApiError::too_large(&param, "a longer text than the model takes", expected));
        }
        let length = if is_sequence { tensor.size(0)? as usize } else { 1 };
        Ok(Sample { index, length, tensor: tensor.into_send()? })
    };
    if single {
        return sources.into_iter().map(process).collect();
    }
    sources.into_par_iter().map(process).collect()
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
        let longest = part.last().map_or(0, |sample| sample.length);
        let (indices, samples) = part.into_iter().map(|sample| (sample.index, sample.tensor)).unzip();
        let modality = modality.clone();
        let job = |reply| EncodeJob { modality, output, samples, generation, longest, reply };
        pending.push((indices, model.submit(job)?));
    }
    Ok(pending)
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
