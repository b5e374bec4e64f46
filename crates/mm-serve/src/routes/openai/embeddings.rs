//! `/v1/embeddings`: texts as OpenAI takes them; images, audio and video in the shapes that other servers introduced.

use crate::{
    embed::{check_count, embed, normalize},
    engine::Capability,
    error::{ApiError, shortened},
    media::read_source,
    routes::body::Body,
    state::{AppState, Shared},
};
use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use mm_core::{Modality, Source};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What is to be embedded, and how the vectors are written.
#[derive(Deserialize, ToSchema)]
pub(crate) struct EmbeddingRequest {
    /// A text, a list of texts, or a list of objects with one modality each: `{"text": …}`, `{"image": …}`,
    /// `{"audio": …}`, `{"video": …}` (data URI, base64 or URL).
    #[serde(default)]
    #[schema(value_type = Object)]
    input: Value,
    /// Instead of `input`: chat messages whose parts are embedded, as vLLM takes them.
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
    /// The modality of plain strings in `input`, as infinity takes it: text when absent.
    #[serde(default)]
    modality: Option<String>,
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
#[utoipa::path(post, path = "/v1/embeddings", tag = "openai", request_body(
    content = EmbeddingRequest, example = json!({"input": ["a dog", "a cat"]})
), responses(
    (status = 200, description = "The vectors, in the order of the inputs", body = EmbeddingResponse),
    (status = 400, description = "An input that is not what the model takes"),
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
    let inputs = read_inputs(&state, &request).await?;
    let modalities: Vec<Modality> = inputs.iter().map(|(modality, _)| modality.clone()).collect();
    let (model, info) = state.pool.find_for(request.model.as_deref(), Capability::Embed, &modalities)?;
    let mut embedded = embed(&state, model, &info, inputs, None).await?;
    if let Some(dimensions) = request.dimensions {
        let dim = embedded.vectors.first().map_or(0, Vec::len);
        if dimensions == 0 || dimensions > dim {
            return Err(ApiError::invalid(
                "dimensions",
                dimensions,
                format!("1 to {dim}, those of model {}", info.name),
            ));
        }
        for vector in &mut embedded.vectors {
            vector.truncate(dimensions);
            normalize(vector);
        }
    }
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

/// One input before its files are read.
struct RawInput<'a> {
    modality: Modality,
    value: &'a str,
    param: String,
}

async fn read_inputs(state: &AppState, request: &EmbeddingRequest) -> Result<Vec<(Modality, Source)>, ApiError> {
    let default = Modality::from(request.modality.as_deref().unwrap_or("text"));
    let raw = match (&request.messages, &request.input) {
        (Some(messages), Value::Null) => message_inputs(messages)?,
        (Some(_), _) => return Err(ApiError::invalid("messages", "`input` as well", "one of both")),
        (None, Value::Null) => return Err(ApiError::invalid("input", "none", EXPECTED)),
        (None, Value::Array(items)) => {
            check_count(state, items.len())?;
            if items.iter().all(Value::is_number) {
                return Err(token_ids("input"));
            }
            let item = |(index, item)| raw_input(item, &default, format!("input[{index}]"));
            items.iter().enumerate().map(item).collect::<Result<_, _>>()?
        }
        (None, item) => vec![raw_input(item, &default, "input".into())?],
    };
    check_count(state, raw.len())?;
    let mut inputs = Vec::with_capacity(raw.len());
    for RawInput { modality, value, param } in raw {
        let source = read_source(state, &modality, value, &param).await?;
        inputs.push((modality, source));
    }
    Ok(inputs)
}

const EXPECTED: &str = "a text, a list of texts, or objects such as {\"text\": …} and {\"image\": …}";

fn token_ids(param: &str) -> ApiError {
    let expected = "texts (with langchain: check_embedding_ctx_length=False)";
    ApiError::invalid(param, "token ids, which are those of another tokenizer", expected)
}

fn raw_input<'a>(item: &'a Value, default: &Modality, param: String) -> Result<RawInput<'a>, ApiError> {
    match item {
        Value::String(value) => Ok(RawInput { modality: default.clone(), value, param }),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_number) => Err(token_ids(&param)),
        Value::Object(fields) => {
            let mut values = fields.iter().filter(|(_, value)| !value.is_null());
            match (values.next(), values.next()) {
                (Some((name, Value::String(value))), None) if name != "type" => {
                    let param = format!("{param}.{name}");
                    Ok(RawInput { modality: Modality::from(name.as_str()), value, param })
                }
                _ => Err(ApiError::invalid(&param, item_text(item), EXPECTED)),
            }
        }
        other => Err(ApiError::invalid(&param, item_text(other), EXPECTED)),
    }
}

/// The beginning of a value, for messages.
fn item_text(item: &Value) -> String {
    shortened(&item.to_string())
}

/// Each part of the messages as an input of its own.
fn message_inputs(messages: &[Value]) -> Result<Vec<RawInput<'_>>, ApiError> {
    let mut inputs = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let param = format!("messages[{index}].content");
        match &message["content"] {
            Value::String(value) => inputs.push(RawInput { modality: Modality::TEXT, value, param }),
            Value::Array(parts) => {
                for (number, part) in parts.iter().enumerate() {
                    inputs.push(part_input(part, format!("{param}[{number}]"))?);
                }
            }
            other => return Err(ApiError::invalid(&param, item_text(other), "a text or a list of parts")),
        }
    }
    Ok(inputs)
}

fn part_input(part: &Value, param: String) -> Result<RawInput<'_>, ApiError> {
    let kinds = [
        ("text", Modality::TEXT),
        ("image_url", Modality::IMAGE),
        ("audio_url", Modality::AUDIO),
        ("video_url", Modality::VIDEO),
    ];
    for (kind, modality) in kinds {
        if part["type"] == kind {
            let value = part[kind]["url"].as_str().or_else(|| part[kind].as_str());
            let value =
                value.ok_or_else(|| ApiError::invalid(&param, item_text(part), format!("a part with `{kind}`")))?;
            return Ok(RawInput { modality, value, param });
        }
    }
    Err(ApiError::invalid(&param, item_text(part), "a part of type text, image_url, audio_url or video_url"))
}
