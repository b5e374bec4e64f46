//! `/answer`: questions about images and videos, with what the answer depends on.

use super::{body::Body, caption::read_media};
use crate::{
    engine::{Capability, Question},
    error::{ApiError, shortened},
    media::prepare_one,
    state::Shared,
};
use axum::{Json, extract::State};
use base64::{Engine, engine::general_purpose::STANDARD};
use mm_core::{Modality, Source};
use mm_data::decode::{ImageLimits, decode_image_bytes};
use mm_reason::Attribution;
use mm_tasks::report::overlay_heatmap;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, io::Cursor};
use utoipa::ToSchema;

/// Pixels of the longer side of a heat map.
const HEAT_MAP_SIDE: u32 = 640;
/// Candidates of one question.
const MAX_CANDIDATES: usize = 1000;

/// A question about an image or a video.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerRequest {
    /// An image: data URI, base64 or URL.
    #[serde(default)]
    image: Option<String>,
    /// A video, for models that take videos.
    #[serde(default)]
    video: Option<String>,
    question: String,
    /// The answers to choose among; any when empty.
    #[serde(default)]
    candidates: Vec<String>,
    /// Number of scored answers.
    #[serde(default = "super::body::default_k")]
    k: usize,
    /// Whether to show what the answer depends on, for models that can.
    #[serde(default)]
    explain: bool,
    /// The model; the first that answers when absent.
    #[serde(default)]
    model: Option<String>,
}

/// An answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnswerResponse {
    answer: String,
    /// The most probable answers.
    results: Vec<AnswerScore>,
    /// A PNG as a data URI: the image under the attribution of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    heat_map: Option<String>,
    model: String,
}

#[derive(Serialize, ToSchema)]
struct AnswerScore {
    rank: usize,
    answer: String,
    /// Its probability.
    score: f64,
    logit: f64,
}

/// Answers a question about an image or a video.
#[utoipa::path(post, path = "/answer", tag = "mm", request_body(
    content = AnswerRequest, example = json!({"image": "data:image/png;base64,…", "question": "What is on the table?"})
), responses(
    (status = 200, description = "The answer", body = AnswerResponse),
    (status = 400, description = "No question, or not an image that can be read"),
    (status = 404, description = "No such model"),
    (status = 413, description = "More than the server takes")
))]
pub(crate) async fn answer(
    State(state): State<Shared>,
    Body(request): Body<AnswerRequest>,
) -> Result<Json<AnswerResponse>, ApiError> {
    let raw = read_media(&state, request.image.as_deref(), request.video.as_deref()).await?;
    let modalities = std::slice::from_ref(&raw.modality);
    let (model, info) = state.pool.find_for(request.model.as_deref(), Capability::Answer, modalities)?;
    let AnswerRequest { question, candidates, explain, k, .. } = request;
    if question.trim().is_empty() {
        return Err(ApiError::invalid("question", "an empty text", "a question"));
    }
    check_candidates(&candidates)?;
    let image = Some(raw.source.clone()).filter(|_| explain && raw.modality == Modality::IMAGE);
    let medium = prepare_one(&state, (model, &info), raw).await?;
    let (scores, attribution) = model.answer(Question { medium, question, candidates, explain }).await?;
    let best = scores.first().map(|score| score.answer.clone()).unwrap_or_default();
    let heat_map = match image.zip(attribution) {
        Some((image, attribution)) => {
            let max_pixels = state.limits.max_pixels;
            Some(state.decode(move |_| heat_map(&image, &attribution, max_pixels)).await?)
        }
        None => None,
    };
    let results = scores.into_iter().take(k).zip(1..);
    let results = results.map(|(s, rank)| AnswerScore { rank, answer: s.answer, score: s.score, logit: s.logit });
    Ok(Json(AnswerResponse { answer: best, results: results.collect(), heat_map, model: info.name.clone() }))
}

/// Refuses candidates of which one is empty or there twice, and too many.
fn check_candidates(candidates: &[String]) -> Result<(), ApiError> {
    if candidates.len() > MAX_CANDIDATES {
        return Err(ApiError::too_large("candidates", candidates.len(), format!("at most {MAX_CANDIDATES}")));
    }
    let mut seen = BTreeSet::new();
    match candidates.iter().find(|candidate| candidate.trim().is_empty() || !seen.insert(candidate.as_str())) {
        Some(wrong) => {
            let found = format!("{:?} twice or empty", shortened(wrong));
            Err(ApiError::invalid("candidates", found, "different answers"))
        }
        None => Ok(()),
    }
}

/// The image under the attribution, as a data URI.
fn heat_map(source: &Source, attribution: &Attribution, max_pixels: u64) -> Result<String, ApiError> {
    let Source::Bytes(file) = source else { return Err(ApiError::internal("an uploaded image is not bytes")) };
    let limits = ImageLimits { max_pixels, ..ImageLimits::default() };
    let image =
        decode_image_bytes(&file.read()?, &limits).map_err(|error| ApiError::invalid("image", error, "an image"))?;
    let side = image.width().max(image.height());
    let image = if side > HEAT_MAP_SIDE {
        let scaled = |length: u32| (u64::from(length) * u64::from(HEAT_MAP_SIDE) / u64::from(side)).max(1) as u32;
        image::imageops::thumbnail(&image, scaled(image.width()), scaled(image.height()))
    } else {
        image
    };
    let mut png = Cursor::new(Vec::new());
    let written =
        overlay_heatmap(&image, &attribution.patches, attribution.grid).write_to(&mut png, image::ImageFormat::Png);
    written.map_err(ApiError::internal)?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png.into_inner())))
}
