//! The routes of text-embeddings-inference about vectors, with its bodies and errors.

use super::tei_input::{TeiBody, TextBody, TextOptions};
use crate::{
    embed::{Preparation, check_count, embed as embed_inputs, normalize, shorten},
    encode::{self, Processing},
    engine::{Capability, ModelHandle, ModelInfo, Output},
    error::{ApiError, TeiError},
    media::{MediaTotals, read_source},
    state::{AppState, Shared},
};
use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use mm_core::Modality;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use utoipa::ToSchema;

/// Text-embeddings-inference's routes.
const PATHS: [&str; 6] = ["/embed", "/embed_all", "/rerank", "/similarity", "/predict", "/info"];

/// An error of a request that does not reach its route, in the form of that route.
pub(super) fn refusal(path: &str, error: ApiError) -> Response {
    if PATHS.contains(&path) { TeiError::from(error).into_response() } else { error.into_response() }
}

pub(super) type TeiResult<T> = Result<Json<T>, TeiError>;

/// One text or several.
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum Inputs {
    One(String),
    Several(Vec<String>),
}

impl Inputs {
    pub(super) fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(text) => vec![text],
            Self::Several(texts) => texts,
        }
    }
}

/// Texts to be embedded.
#[derive(Deserialize, ToSchema)]
pub(crate) struct EmbedRequest {
    inputs: Inputs,
    /// Whether vectors are scaled to unit length.
    #[serde(default = "yes")]
    normalize: bool,
    /// The first so many dimensions.
    #[serde(default)]
    dimensions: Option<usize>,
    #[serde(flatten)]
    options: TextOptions,
    /// The model; the first that embeds when absent.
    #[serde(default)]
    model: Option<String>,
}

fn yes() -> bool {
    true
}

/// Vectors of texts.
async fn embed_texts(
    state: &AppState,
    found: (&ModelHandle, &ModelInfo),
    texts: Vec<String>,
    preparation: Preparation<'_>,
) -> Result<Vec<Vec<f32>>, ApiError> {
    check_count(state, texts.len())?;
    let mut inputs = Vec::with_capacity(texts.len());
    for text in texts {
        inputs.push((Modality::TEXT, read_source(state, &Modality::TEXT, &text, preparation.field).await?));
    }
    Ok(embed_inputs(state, found, inputs, preparation).await?.vectors)
}

/// Vectors of texts.
#[utoipa::path(post, path = "/embed", tag = "text-embeddings-inference", request_body(
    content = EmbedRequest, example = json!({"inputs": ["a dog", "a cat"]})
), responses(
    (status = 200, description = "One vector for each text", body = Vec<Vec<f32>>),
    (status = 413, description = "More than the server takes"),
    (status = 422, description = "Not what the model takes"),
    (status = 429, description = "Too many requests")
))]
pub(crate) async fn embed(
    State(state): State<Shared>,
    TextBody(request): TextBody<EmbedRequest>,
) -> TeiResult<Vec<Vec<f32>>> {
    let (model, info) = state.pool.find_for(request.model.as_deref(), Capability::Embed, &[Modality::TEXT])?;
    let texts = request.inputs.into_vec();
    check_count(&state, texts.len())?;
    let preparation = request.options.preparation(&info, "inputs")?;
    info.check_dimensions(request.dimensions, &[Modality::TEXT])?;
    let mut vectors = embed_texts(&state, (model, &info), texts, preparation).await?;
    shorten(&mut vectors, request.dimensions, &info.name)?;
    if request.normalize {
        vectors.iter_mut().for_each(|vector| normalize(vector));
    }
    Ok(Json(vectors))
}

/// Texts of which every token gets a vector.
#[derive(Deserialize, ToSchema)]
pub(crate) struct EmbedAllRequest {
    inputs: Inputs,
    #[serde(flatten)]
    options: TextOptions,
    /// The model; the first that embeds when absent.
    #[serde(default)]
    model: Option<String>,
}

/// A vector for each token of each text.
#[utoipa::path(post, path = "/embed_all", tag = "text-embeddings-inference", request_body(
    content = EmbedAllRequest, example = json!({"inputs": "a dog"})
), responses(
    (status = 200, description = "For each text the vectors of its tokens", body = Vec<Vec<Vec<f32>>>),
    (status = 413, description = "More than the server takes"),
    (status = 422, description = "Not what the model takes")
))]
pub(crate) async fn embed_all(
    State(state): State<Shared>,
    TextBody(request): TextBody<EmbedAllRequest>,
) -> TeiResult<Vec<Vec<Vec<f32>>>> {
    let (model, info) = state.pool.find_for(request.model.as_deref(), Capability::Embed, &[Modality::TEXT])?;
    let texts = request.inputs.into_vec();
    check_count(&state, texts.len())?;
    let mut sources = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        sources.push((index, read_source(&state, &Modality::TEXT, text, "inputs").await?));
    }
    let Preparation { field, prompt, long_texts } = request.options.preparation(&info, "inputs")?;
    let processing = Processing {
        processor: prompt.map_or(info.processor(&Modality::TEXT)?, |prompt| &prompt.processor).clone(),
        modality: Modality::TEXT,
        field: field.to_owned(),
        long_texts,
        max_audio_seconds: state.limits.max_audio_seconds,
        totals: Arc::new(MediaTotals::new(&state.limits)),
    };
    let samples = state.decode(move |cancellation| processing.run(sources, cancellation)).await?;
    let lengths: Vec<usize> = samples.iter().map(|sample| sample.length).collect();
    check_tokens(&state, lengths.iter().sum())?;
    let pending = encode::submit(model, info.generation, (&Modality::TEXT, Output::Features), samples)?;
    let rows = encode::rows(pending).await?;
    let vectors = |(row, length): (Vec<f32>, usize)| -> Result<Vec<Vec<f32>>, ApiError> {
        if length == 0 || row.is_empty() || row.len() % length != 0 {
            let found = format!("{} values for the {length} tokens of a text", row.len());
            return Err(ApiError::internal(found));
        }
        Ok(row.chunks(row.len() / length).map(<[f32]>::to_vec).collect())
    };
    Ok(Json(rows.into_iter().zip(lengths).map(vectors).collect::<Result<_, _>>()?))
}

/// Refuses texts whose vectors, one for each token, would take much memory.
fn check_tokens(state: &AppState, tokens: usize) -> Result<(), ApiError> {
    let max = state.limits.max_batch_tokens;
    if tokens > max {
        return Err(ApiError::too_large("inputs", format!("{tokens} tokens"), format!("at most {max} in a request")));
    }
    Ok(())
}

/// A sentence and those that it is compared with.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SimilarityRequest {
    inputs: SimilarityInputs,
    /// How the sentence and the others become tokens.
    #[serde(default)]
    parameters: Option<TextOptions>,
    /// The model; the first that embeds when absent.
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize, ToSchema)]
struct SimilarityInputs {
    source_sentence: String,
    sentences: Vec<String>,
}

/// The cosine of a sentence and each of several others.
#[utoipa::path(post, path = "/similarity", tag = "text-embeddings-inference", request_body(
    content = SimilarityRequest, example = json!({"inputs": {"source_sentence": "a dog", "sentences": ["a puppy", "a train"]}})
), responses(
    (status = 200, description = "One cosine for each sentence", body = Vec<f64>),
    (status = 413, description = "More than the server takes"),
    (status = 422, description = "Not what the model takes")
))]
pub(crate) async fn similarity(
    State(state): State<Shared>,
    TeiBody(request): TeiBody<SimilarityRequest>,
) -> TeiResult<Vec<f64>> {
    let SimilarityInputs { source_sentence, sentences } = request.inputs;
    if sentences.is_empty() {
        return Err(ApiError::invalid("inputs.sentences", "none", "at least one").into());
    }
    let found = state.pool.find_for(request.model.as_deref(), Capability::Embed, &[Modality::TEXT])?;
    let preparation = |field| match &request.parameters {
        Some(parameters) => parameters.preparation(&found.1, field),
        None => Ok(Preparation::of(field)),
    };
    let (query, texts) = (preparation("inputs.source_sentence")?, preparation("inputs.sentences")?);
    Ok(Json(cosines(&state, (found.0, &found.1), (source_sentence, query), (sentences, texts)).await?))
}

/// The cosines of texts' vectors with the query's, in the order of the texts.
pub(super) async fn cosines(
    state: &AppState,
    found: (&ModelHandle, &ModelInfo),
    (query, query_preparation): (String, Preparation<'_>),
    (texts, texts_preparation): (Vec<String>, Preparation<'_>),
) -> Result<Vec<f64>, ApiError> {
    let query = embed_texts(state, found, vec![query], query_preparation);
    // At the same time, so that they are in one batch.
    let (queries, mut vectors) = tokio::try_join!(query, embed_texts(state, found, texts, texts_preparation))?;
    let mut query = queries.into_iter().next().unwrap_or_default();
    normalize(&mut query);
    vectors.iter_mut().for_each(|vector| normalize(vector));
    let cosine = |vector: &Vec<f32>| vector.iter().zip(&query).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    Ok(vectors.iter().map(cosine).collect())
}

/// What the server is, in text-embeddings-inference's form.
#[utoipa::path(get, path = "/info", tag = "text-embeddings-inference", responses(
    (status = 200, description = "The first model that embeds, or else reranks, and the limits", body = Object),
    (status = 503, description = "Models are being loaded")
))]
pub(crate) async fn info(State(state): State<Shared>) -> TeiResult<Value> {
    let (_, info) = state.pool.find_for_either(None, [Capability::Embed, Capability::Rerank], &[])?;
    Ok(Json(json!({
        "model_id": info.name, "model_sha": info.fingerprint, "model_dtype": "float32",
        "model_type": model_type(&info),
        "max_concurrent_requests": state.limits.max_requests, "max_batch_tokens": state.limits.max_batch_tokens,
        "max_batch_requests": null, "max_client_batch_size": state.limits.max_inputs, "auto_truncate": true,
        "tokenization_workers": state.decoders.current_num_threads(), "version": env!("CARGO_PKG_VERSION"),
        "device": state.device,
    })))
}

/// What a model is: rerankers and models with classes of their own state these, `0` to the last.
fn model_type(info: &ModelInfo) -> Value {
    let kind = if info.can(Capability::Rerank) {
        "reranker"
    } else if info.can(Capability::Classify) {
        "classifier"
    } else {
        return json!({"embedding": {}});
    };
    let labels = || info.classes.labels.iter().enumerate();
    let names: Map<String, Value> = labels().map(|(id, label)| (id.to_string(), json!(label))).collect();
    let ids: Map<String, Value> = labels().map(|(id, label)| (label.clone(), json!(id))).collect();
    json!({kind: {"id2label": names, "label2id": ids}})
}
