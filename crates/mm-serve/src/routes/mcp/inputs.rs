//! The tools whose routes take something other than plain arguments: a list of any values, or a form.

use crate::{
    embed::embed_value,
    engine::Capability,
    error::ApiError,
    media::{given, read_source},
    routes::{
        body::Body,
        openai::transcriptions::{TranscriptionOptions, transcribe as transcribe_file},
    },
    state::Shared,
};
use axum::{Json, extract::State};
use mm_core::{Modality, Source};
use mm_reason::pretrained::Segment;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One value to be embedded.
#[derive(Deserialize, ToSchema)]
pub(super) struct EmbedArguments {
    /// A text.
    #[serde(default)]
    text: Option<String>,
    /// An image: data URI, base64 or URL.
    #[serde(default)]
    image: Option<String>,
    /// An audio file: data URI, base64 or URL.
    #[serde(default)]
    audio: Option<String>,
    /// A video: data URI, base64 or URL.
    #[serde(default)]
    video: Option<String>,
    /// The model; the first that embeds when absent.
    #[serde(default)]
    model: Option<String>,
}

/// A vector.
#[derive(Serialize)]
pub(super) struct Embedding {
    embedding: Vec<f32>,
    modality: Modality,
    model: String,
}

/// Embeds one value.
pub(super) async fn embed(
    State(state): State<Shared>,
    Body(arguments): Body<EmbedArguments>,
) -> Result<Json<Embedding>, ApiError> {
    let given = given([&arguments.text, &arguments.image, &arguments.audio, &arguments.video]);
    let expected = "one of text, image, audio and video";
    let (modality, value) = match given.as_slice() {
        [(modality, value)] => (modality.clone(), *value),
        [] => return Err(ApiError::invalid("text", "none", expected)),
        _ => return Err(ApiError::invalid("text", "several values", expected)),
    };
    let modalities = std::slice::from_ref(&modality);
    let (model, info) = state.pool.find_for(arguments.model.as_deref(), Capability::Embed, modalities)?;
    let embedding = embed_value(&state, model, &info, modality.clone(), value).await?;
    Ok(Json(Embedding { embedding, modality, model: info.name.clone() }))
}

/// Speech to be transcribed.
#[derive(Deserialize, ToSchema)]
pub(super) struct TranscribeArguments {
    /// An audio file: data URI, base64 or URL.
    audio: String,
    /// The spoken language, as a code or name; detected when absent.
    #[serde(default)]
    language: Option<String>,
    /// The model; the first that transcribes when absent.
    #[serde(default)]
    model: Option<String>,
}

/// A transcript.
#[derive(Serialize)]
pub(super) struct TranscribeResult {
    text: String,
    /// The English name of the spoken language, where the model says it.
    language: Option<&'static str>,
    segments: Vec<TimedText>,
    /// What may be wrong with it.
    warnings: Vec<String>,
    /// Whether it ends before the audio does.
    truncated: bool,
}

/// A segment, in seconds from the start.
#[derive(Serialize)]
struct TimedText {
    start: f64,
    end: f64,
    text: String,
}

/// Transcribes an audio file.
pub(super) async fn transcribe(
    State(state): State<Shared>,
    Body(arguments): Body<TranscribeArguments>,
) -> Result<Json<TranscribeResult>, ApiError> {
    let Source::Bytes(file) = read_source(&state, &Modality::AUDIO, &arguments.audio, "audio").await? else {
        return Err(ApiError::internal("an audio file is not bytes"));
    };
    let options = TranscriptionOptions { language: arguments.language, temperature: None, timestamps: true };
    let (transcript, _) = transcribe_file(&state, arguments.model.as_deref(), (file, "audio"), options).await?;
    let segment =
        |segment: &Segment| TimedText { start: segment.start, end: segment.end, text: segment.text.trim().to_owned() };
    Ok(Json(TranscribeResult {
        text: transcript.text.trim().to_owned(),
        language: transcript.language,
        segments: transcript.segments.iter().map(segment).collect(),
        warnings: transcript.warnings.iter().map(ToString::to_string).collect(),
        truncated: transcript.truncated,
    }))
}
