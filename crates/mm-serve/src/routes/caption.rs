//! `/caption`: images and videos in words.

use super::body::Body;
use crate::{
    engine::{Capability, Prompt, RawMedium, Room},
    error::ApiError,
    media::{prepare_one, read_source},
    state::Shared,
};
use axum::{Json, extract::State};
use mm_core::Modality;
use mm_reason::generate::GenerationConfig;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What is to be captioned.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CaptionRequest {
    /// An image: data URI, base64 or URL.
    #[serde(default)]
    image: Option<String>,
    /// A video, for models that take videos.
    #[serde(default)]
    video: Option<String>,
    /// The beginning of the caption.
    #[serde(default)]
    prompt: Option<String>,
    /// Maximum number of generated tokens; the model's own when absent.
    #[serde(default)]
    max_new_tokens: Option<usize>,
    /// Number of beams; the model's own when absent.
    #[serde(default)]
    num_beams: Option<usize>,
    /// The model; the first that captions when absent.
    #[serde(default)]
    model: Option<String>,
}

/// A caption.
#[derive(Serialize, ToSchema)]
pub(crate) struct CaptionResponse {
    text: String,
    /// Log-probability, divided by the length as the model's settings say.
    score: f64,
    /// Whether it ended by itself, not at the maximum length.
    finished: bool,
    tokens: usize,
    model: String,
}

/// The image or video of a request.
pub(super) async fn read_media(
    state: &Shared,
    image: Option<&str>,
    video: Option<&str>,
) -> Result<RawMedium, ApiError> {
    let (modality, value, param) = match (image, video) {
        (Some(image), None) => (Modality::IMAGE, image, "image"),
        (None, Some(video)) => (Modality::VIDEO, video, "video"),
        (None, None) => return Err(ApiError::invalid("image", "none", "an image, or a video")),
        (Some(_), Some(_)) => return Err(ApiError::invalid("video", "an image as well", "one of both")),
    };
    let source = read_source(state, &modality, value, param).await?;
    Ok(RawMedium { modality, source, param: param.to_owned() })
}

/// Captions an image or a video.
#[utoipa::path(post, path = "/caption", tag = "mm", request_body(
    content = CaptionRequest, example = json!({"image": "data:image/png;base64,…"})
), responses(
    (status = 200, description = "The caption", body = CaptionResponse),
    (status = 400, description = "Not an image that can be read"),
    (status = 404, description = "No such model"),
    (status = 413, description = "More than the server takes")
))]
pub(crate) async fn caption(
    State(state): State<Shared>,
    Body(request): Body<CaptionRequest>,
) -> Result<Json<CaptionResponse>, ApiError> {
    let raw = read_media(&state, request.image.as_deref(), request.video.as_deref()).await?;
    let modalities = std::slice::from_ref(&raw.modality);
    let (model, info) = state.pool.find_for(request.model.as_deref(), Capability::Caption, modalities)?;
    let (max, beams, prompt) = (request.max_new_tokens, request.num_beams, request.prompt);
    if let Some(max) = max.filter(|max| *max == 0 || *max > state.limits.max_new_tokens) {
        return Err(ApiError::invalid("max_new_tokens", max, format!("1 to {}", state.limits.max_new_tokens)));
    }
    if let Some(beams) = beams.filter(|beams| !(1..=16).contains(beams)) {
        return Err(ApiError::invalid("num_beams", beams, "1 to 16"));
    }
    let overrides = move |base: &GenerationConfig, _: Option<Room>| {
        Ok(GenerationConfig {
            max_new_tokens: max.unwrap_or(base.max_new_tokens),
            max_length: base.max_length.filter(|_| max.is_none()),
            num_beams: beams.unwrap_or(base.num_beams),
            num_return_sequences: 1,
            ..base.clone()
        })
    };
    let medium = prepare_one(&state, (model, &info), raw).await?;
    let caption =
        model.generate(Prompt::Caption { medium: Box::new(medium), start: prompt }, Box::new(overrides))?.await?;
    Ok(Json(CaptionResponse {
        text: caption.text.trim().to_owned(),
        score: caption.score,
        finished: caption.finished,
        tokens: caption.num_tokens,
        model: info.name.clone(),
    }))
}
