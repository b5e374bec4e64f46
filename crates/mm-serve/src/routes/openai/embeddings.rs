//! `/v1/embeddings`: vectors as OpenAI gives them.

use super::{
    embedding_inputs::read_inputs,
    unsupported::{self, refuse},
};
use crate::{
    embed::{Preparation, embed, normalize, shorten},
    encode::LongTexts,
    engine::Capability,
    error::ApiError,
    routes::body::Body,
    state::Shared,
};
use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use mm_core::Modality;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

/// What is to be embedded, and how the vectors are written.
#[derive(Deserialize, ToSchema)]
pub(crate) struct EmbeddingRequest {
    /// A text, a list of texts, or a list of objects with one modality each: `{"text": …}`, `{"image": …}`,
    /// `{"audio": …}`, `{"video": …}` (data URI, base64 or URL).
    #[serde(default)]
    #[schema(value_type = Object)]
    input: Value,
    /// Instead of `input`: chat messages with one content part in all, of a user, as vLLM takes them.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Vec<Value>>,
    /// The model; the first that embeds when absent.
    #[serde(default)]
    model: Option<String>,
    /// `float` or `base64` (little-endian float32).
    #[serde(default)]
    encoding_format: EncodingFormat,
    /// The first so many dimensions, scaled to unit length; for models trained for it.
    #[serde(default)]
    dimensions: Option<usize>,
    /// The modality of plain strings in `input`, as infinity takes it: `text` when absent, `image`, `audio` or `video`.
    #[serde(default)]
    modality: Option<String>,
    /// -1 cuts texts that are longer than the model takes, as vLLM does; they are refused when absent.
    #[serde(default)]
    truncate_prompt_tokens: Option<i64>,
    /// `true` cuts them too, as Jina takes it.
    #[serde(default)]
    truncate: Option<bool>,
    /// `true` scales vectors to unit length, as Jina takes it; otherwise they are as the model gives them.
    #[serde(default)]
    normalized: Option<bool>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl EmbeddingRequest {
    /// Refuses options that mm does not have, before anything is computed.
    fn check(&self) -> Result<(), ApiError> {
        refuse(&self.others, &unsupported::EMBEDDINGS)?;
        if let Some(other) = self.truncate_prompt_tokens.filter(|tokens| *tokens != -1) {
            let expected = "-1, which cuts texts at the model's length";
            return Err(ApiError::invalid("truncate_prompt_tokens", other, expected));
        }
        match self.dimensions {
            Some(0) => Err(ApiError::invalid("dimensions", 0, "at least 1")),
            _ => Ok(()),
        }
    }

    /// How inputs become samples.
    fn preparation(&self) -> Preparation<'static> {
        let field = if self.messages.is_some() { "messages" } else { "input" };
        let cuts = self.truncate_prompt_tokens.is_some() || self.truncate == Some(true);
        let long_texts = if cuts { LongTexts::Cut } else { LongTexts::RefuseAsContextLength };
        Preparation { long_texts, ..Preparation::of(field) }
    }

    /// Shortens and scales vectors of a model.
    fn finish(&self, vectors: &mut [Vec<f32>], model: &str) -> Result<(), ApiError> {
        shorten(vectors, self.dimensions, model)?;
        if self.dimensions.is_some() || self.normalized == Some(true) {
            vectors.iter_mut().for_each(|vector| normalize(vector));
        }
        Ok(())
    }
}

/// How vectors are written.
#[derive(Deserialize, ToSchema, Default, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    #[default]
    Float,
    Base64,
}

/// The vectors.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingResponse {
    /// `list`.
    object: &'static str,
    data: Vec<EmbeddingObject>,
    model: String,
    usage: Usage,
}

#[derive(Serialize, ToSchema)]
struct EmbeddingObject {
    /// `embedding`.
    object: &'static str,
    /// The index of its input.
    index: usize,
    embedding: EncodedVector,
}

/// A vector as numbers, or as base64 of little-endian float32.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum EncodedVector {
    Float(Vec<f32>),
    Base64(String),
}

/// Tokens of the texts.
#[derive(Serialize, ToSchema)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// Vectors of texts, images, audio and video.
///
/// Refused by their names, since they would change the vectors: Jina's `task`, `late_chunking`, and `embedding_type` other
/// than `float`. Other fields that are not listed are ignored.
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body(
    content = EmbeddingRequest, example = json!({"input": ["a dog", "a cat"]})
), responses(
    (status = 200, description = "The vectors, in the order of the inputs", body = EmbeddingResponse),
    (status = 400, description = "An input that is not what the model takes, or a longer text"),
    (status = 401, description = "No valid key"),
    (status = 404, description = "No such model"),
    (status = 413, description = "More than the server takes"),
    (status = 429, description = "Too many requests"),
    (status = 503, description = "Models are being loaded")
))]
pub(crate) async fn embeddings(
    State(state): State<Shared>,
    Body(request): Body<EmbeddingRequest>,
) -> Result<Json<EmbeddingResponse>, ApiError> {
    request.check()?;
    let given = (request.messages.as_deref(), &request.input);
    let inputs = read_inputs(&state, given, request.modality.as_deref()).await?;
    let modalities: Vec<Modality> = inputs.iter().map(|(modality, _)| modality.clone()).collect();
    let (model, info) = state.pool.find_for(request.model.as_deref(), Capability::Embed, &modalities)?;
    info.check_dimensions(request.dimensions, &modalities)?;
    let mut embedded = embed(&state, (model, &info), inputs, request.preparation()).await?;
    request.finish(&mut embedded.vectors, &info.name)?;
    let encode = |vector: Vec<f32>| match request.encoding_format {
        EncodingFormat::Float => EncodedVector::Float(vector),
        EncodingFormat::Base64 => {
            let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
            EncodedVector::Base64(STANDARD.encode(bytes))
        }
    };
    let data = embedded.vectors.into_iter().enumerate();
    let data = data.map(|(index, vector)| EmbeddingObject { object: "embedding", index, embedding: encode(vector) });
    let usage = Usage { prompt_tokens: embedded.tokens, total_tokens: embedded.tokens };
    Ok(Json(EmbeddingResponse { object: "list", data: data.collect(), model: info.name.clone(), usage }))
}
