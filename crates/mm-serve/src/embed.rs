//! Vectors for the inputs of a request: decoded side by side, computed in batches with other requests.

use crate::{
    engine::{EmbedJob, ModelHandle, ModelInfo},
    error::ApiError,
    media::read_source,
    state::AppState,
};
use mm_core::{Modality, ProcessContext, Processor, SendTensor, Source};
use mm_data::process_catching_panics;
use mm_repr::NamedPrompt;
use rayon::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

/// Rows of one job: a long request is divided, so that its parts are batched by length.
const MAX_JOB_ROWS: usize = 64;

/// Vectors in the order of the inputs.
pub(crate) struct Embedded {
    pub(crate) vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub(crate) tokens: usize,
}

/// A sample on its way to the model.
struct Sample {
    index: usize,
    length: usize,
    tensor: SendTensor,
}

/// Embeds inputs of any modalities that the model takes; texts with a prompt, or else with the model's default one.
pub(crate) async fn embed(
    state: &AppState,
    model: &ModelHandle,
    info: &ModelInfo,
    inputs: Vec<(Modality, Source)>,
    prompt: Option<&NamedPrompt>,
) -> Result<Embedded, ApiError> {
    check_count(state, inputs.len())?;
    let mut groups: BTreeMap<Modality, Vec<(usize, Source)>> = BTreeMap::new();
    for (index, (modality, source)) in inputs.into_iter().enumerate() {
        info.processor(&modality)?;
        groups.entry(modality).or_default().push((index, source));
    }
    let (mut pending, mut tokens, generation) = (Vec::new(), 0, info.generation);
    for (modality, sources) in groups {
        let is_text = modality == Modality::TEXT;
        let prompt = prompt.filter(|_| is_text);
        let processor = prompt.map_or(info.processor(&modality)?, |prompt| &prompt.processor).clone();
        let skipped = prompt.and_then(|prompt| prompt.skipped);
        let mut samples = state.decode(move || process(&processor, sources, is_text)).await?;
        tokens += if is_text { samples.iter().map(|sample| sample.length).sum() } else { 0 };
        samples.sort_by_key(|sample| sample.length);
        while !samples.is_empty() {
            let rest = samples.split_off(samples.len().min(MAX_JOB_ROWS));
            let part = std::mem::replace(&mut samples, rest);
            let longest = part.last().map_or(0, |sample| sample.length);
            let (indices, tensors) = part.into_iter().map(|sample| (sample.index, sample.tensor)).unzip();
            let modality = modality.clone();
            let job = |reply| EmbedJob { modality, skipped, samples: tensors, generation, longest, reply };
            let indices: Vec<usize> = indices;
            pending.push((indices, model.submit(job)?));
        }
    }
    let mut vectors = Vec::new();
    for (indices, answer) in pending {
        let found = answer.await.map_err(|_| ApiError::internal("the model's thread gave no vectors"))??;
        vectors.extend(indices.into_iter().zip(found));
    }
    vectors.sort_by_key(|(index, _)| *index);
    Ok(Embedded { vectors: vectors.into_iter().map(|(_, vector)| vector).collect(), tokens })
}

/// The vector of one value of a request: a text, a data URI, base64 or a URL.
pub(crate) async fn embed_value(
    state: &AppState,
    model: &ModelHandle,
    info: &ModelInfo,
    modality: Modality,
    value: &str,
) -> Result<Vec<f32>, ApiError> {
    let source = read_source(state, &modality, value, modality.name()).await?;
    let vector = embed(state, model, info, vec![(modality, source)], None).await?.vectors.pop();
    vector.ok_or_else(|| ApiError::internal("the model gave no vector"))
}

/// Refuses a request without inputs, or with too many.
pub(crate) fn check_count(state: &AppState, count: usize) -> Result<(), ApiError> {
    let max = state.limits.max_inputs;
    match count {
        0 => Err(ApiError::invalid("input", "no inputs", "at least one")),
        count if count > max => Err(ApiError::too_large("input", format!("{count} inputs"), format!("at most {max}"))
            .with_code("too_many_inputs")),
        _ => Ok(()),
    }
}

/// Samples of sources, read in parallel.
fn process(
    processor: &Arc<dyn Processor>,
    sources: Vec<(usize, Source)>,
    is_text: bool,
) -> Result<Vec<Sample>, ApiError> {
    let single = sources.len() == 1;
    let process = |(index, source): (usize, Source)| -> Result<Sample, ApiError> {
        let param = if single { "input".to_owned() } else { format!("input[{index}]") };
        let tensor = process_catching_panics(processor.as_ref(), &source, &mut ProcessContext::eval());
        let tensor = tensor.map_err(|error| ApiError::from(error).with_param(&param))?;
        let length = if is_text || processor.is_sequence() { tensor.size(0)? as usize } else { 1 };
        Ok(Sample { index, length, tensor: tensor.into_send()? })
    };
    if single {
        return sources.into_iter().map(process).collect();
    }
    sources.into_par_iter().map(process).collect()
}

/// Scales a vector to unit length; a zero vector stays.
pub(crate) fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}
