//! Vectors for the inputs of a request: decoded in parallel, computed in batches with other requests.

use crate::{
    encode::{self, LongTexts, Processing},
    engine::{ModelHandle, ModelInfo, Output},
    error::ApiError,
    media::{MediaTotals, read_source},
    state::AppState,
};
use mm_core::{Modality, Source};
use mm_repr::NamedPrompt;
use std::{collections::BTreeMap, sync::Arc};

/// Vectors in the order of the inputs.
pub(crate) struct Embedded {
    pub(crate) vectors: Vec<Vec<f32>>,
    /// Tokens of all texts.
    pub(crate) tokens: usize,
}

/// How inputs become samples.
#[derive(Clone, Copy)]
pub(crate) struct Preparation<'a> {
    /// The field of the request that errors name.
    pub(crate) field: &'a str,
    /// What texts begin with; the model's default prompt when absent.
    pub(crate) prompt: Option<&'a NamedPrompt>,
    /// What becomes of texts that are longer than the model takes.
    pub(crate) long_texts: LongTexts,
}

impl<'a> Preparation<'a> {
    /// As `mm embed` does it.
    pub(crate) fn of(field: &'a str) -> Self {
        Self { field, prompt: None, long_texts: LongTexts::Cut }
    }
}

/// Embeds inputs of any modalities that the model takes.
pub(crate) async fn embed(
    state: &AppState,
    (model, info): (&ModelHandle, &ModelInfo),
    inputs: Vec<(Modality, Source)>,
    preparation: Preparation<'_>,
) -> Result<Embedded, ApiError> {
    check_count(state, inputs.len())?;
    let mut groups: BTreeMap<Modality, Vec<(usize, Source)>> = BTreeMap::new();
    for (index, (modality, source)) in inputs.into_iter().enumerate() {
        info.processor(&modality)?;
        groups.entry(modality).or_default().push((index, source));
    }
    let (mut pending, mut tokens) = (Vec::new(), 0);
    let totals = Arc::new(MediaTotals::new(&state.limits));
    for (modality, sources) in groups {
        let is_text = modality == Modality::TEXT;
        let prompt = preparation.prompt.filter(|_| is_text);
        let processor = prompt.map_or(info.processor(&modality)?, |prompt| &prompt.processor).clone();
        let output = Output::Embedding { skipped: prompt.and_then(|prompt| prompt.skipped) };
        let processing = Processing {
            processor,
            modality: modality.clone(),
            field: preparation.field.to_owned(),
            long_texts: preparation.long_texts,
            max_audio_seconds: state.limits.max_audio_seconds,
            totals: totals.clone(),
        };
        let samples = state.decode(move |cancellation| processing.run(sources, cancellation)).await?;
        tokens += if is_text { samples.iter().map(|sample| sample.length).sum() } else { 0 };
        pending.extend(encode::submit(model, info.generation, (&modality, output), samples)?);
    }
    Ok(Embedded { vectors: encode::rows(pending).await?, tokens })
}

/// The vector of one value of a request: a text, a data URI, base64 or a URL.
pub(crate) async fn embed_value(
    state: &AppState,
    model: &ModelHandle,
    info: &ModelInfo,
    modality: Modality,
    value: &str,
) -> Result<Vec<f32>, ApiError> {
    let field = modality.name().to_owned();
    let source = read_source(state, &modality, value, &field).await?;
    let vector = embed(state, (model, info), vec![(modality, source)], Preparation::of(&field)).await?.vectors.pop();
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

/// Cuts vectors of a model to their first dimensions.
///
/// # Errors
/// When they have fewer. Where their number is known before they are computed, [`ModelInfo::check_dimensions`] refuses
/// the request then.
pub(crate) fn shorten(vectors: &mut [Vec<f32>], dimensions: Option<usize>, model: &str) -> Result<(), ApiError> {
    let (Some(dimensions), Some(width)) = (dimensions, vectors.iter().map(Vec::len).min()) else { return Ok(()) };
    check_width(dimensions, width, model)?;
    vectors.iter_mut().for_each(|vector| vector.truncate(dimensions));
    Ok(())
}

/// Refuses another number of dimensions than 1 to the model's.
pub(crate) fn check_width(dimensions: usize, width: usize, model: &str) -> Result<(), ApiError> {
    if (1..=width).contains(&dimensions) {
        return Ok(());
    }
    Err(ApiError::invalid("dimensions", dimensions, format!("1 to {width}, those of model {model}")))
}

/// Scales a vector to unit length; a zero vector stays.
pub(crate) fn normalize(vector: &mut [f32]) {
    let norm = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
    }
}
