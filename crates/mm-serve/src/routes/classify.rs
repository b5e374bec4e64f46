//! `/classify`: by a model's own classes, or zero-shot by candidate labels.

use super::body::Body;
use crate::{
    embed::check_count,
    engine::{Capability, LoadedModel},
    error::ApiError,
    media::read_source,
    state::Shared,
};
use axum::{Json, extract::State};
use mm_core::{Modality, Source, Tensor};
use mm_repr::Pretrained;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Values to be classified: of one modality.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ClassifyRequest {
    /// Images: data URI, base64 or URL.
    #[serde(default)]
    image: Vec<String>,
    /// Audio.
    #[serde(default)]
    audio: Vec<String>,
    /// Video.
    #[serde(default)]
    video: Vec<String>,
    /// Candidate labels, for models that embed text in the same space; the model's own classes when empty.
    #[serde(default)]
    candidates: Vec<String>,
    /// Texts in which `{}` is replaced by each label; `a photo of a {}` when empty.
    #[serde(default)]
    templates: Vec<String>,
    /// Number of classes for each value.
    #[serde(default = "five")]
    k: usize,
    /// The model; the first that classifies so when absent.
    #[serde(default)]
    model: Option<String>,
}

fn five() -> usize {
    5
}

/// The classes of each value.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassifyResponse {
    data: Vec<Classified>,
    model: String,
}

#[derive(Serialize, ToSchema)]
struct Classified {
    index: usize,
    results: Vec<ClassScore>,
}

#[derive(Serialize, ToSchema)]
struct ClassScore {
    rank: usize,
    label: String,
    /// Its probability.
    score: f32,
    logit: f32,
}

/// Classifies images, audio or video.
#[utoipa::path(post, path = "/classify", tag = "mm", request_body = ClassifyRequest, responses(
    (status = 200, description = "The most probable classes of each value", body = ClassifyResponse),
    (status = 400, description = "A value that cannot be read"),
    (status = 404, description = "No such model"),
    (status = 413, description = "More than the server takes")
))]
pub(crate) async fn classify(
    State(state): State<Shared>,
    Body(request): Body<ClassifyRequest>,
) -> Result<Json<ClassifyResponse>, ApiError> {
    let zero_shot = !request.candidates.is_empty();
    let capability = if zero_shot { Capability::ZeroShot } else { Capability::Classify };
    let (model, info) = state.pool.find(request.model.as_deref(), capability)?;
    let given =
        [(Modality::IMAGE, &request.image), (Modality::AUDIO, &request.audio), (Modality::VIDEO, &request.video)];
    let mut given = given.into_iter().filter(|(_, values)| !values.is_empty());
    let (modality, values) = match (given.next(), given.next()) {
        (Some(one), None) => one,
        (None, _) => return Err(ApiError::invalid("image", "none", "images, audio or video")),
        _ => return Err(ApiError::invalid("image", "several modalities", "one of image, audio and video")),
    };
    check_count(&state, values.len())?;
    check_count(&state, request.candidates.len().max(1))?;
    let mut sources = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        sources.push(read_source(&state, &modality, value, &format!("{modality}[{index}]")).await?);
    }
    let ClassifyRequest { candidates, templates, k, .. } = request;
    let data = model.call(move |model| {
        let LoadedModel::Encoder(encoder) = model else {
            return Err(ApiError::internal("a model that does not classify was asked to"));
        };
        let (scores, logits) = if zero_shot {
            zero_shot_scores(encoder, &modality, &sources, &candidates, &templates)?
        } else {
            probabilities(&encoder.logits(&modality, &sources)?, encoder.multi_label)?
        };
        let labels = if zero_shot { &candidates } else { &encoder.labels };
        let rows = scores.chunks(labels.len().max(1)).zip(logits.chunks(labels.len().max(1)));
        Ok(rows.enumerate().map(|(index, (scores, logits))| rank(index, labels, scores, logits, k)).collect())
    });
    Ok(Json(ClassifyResponse { data: data.await?, model: info.name.clone() }))
}

/// Classes by their probability.
fn rank(index: usize, labels: &[String], scores: &[f32], logits: &[f32], k: usize) -> Classified {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    order.truncate(k);
    let score =
        |(n, rank): (usize, usize)| ClassScore { rank, label: labels[n].clone(), score: scores[n], logit: logits[n] };
    Classified { index, results: order.into_iter().zip(1..).map(score).collect() }
}

/// Probabilities and logits; labels that do not exclude each other each have a probability of their own.
fn probabilities(logits: &Tensor, multi_label: bool) -> Result<(Vec<f32>, Vec<f32>), ApiError> {
    let scores = if multi_label { logits.sigmoid()? } else { logits.softmax(-1)? };
    Ok((scores.to_vec::<f32>()?, logits.to_vec::<f32>()?))
}

/// Scores by the cosines of values and label texts.
fn zero_shot_scores(
    model: &Pretrained,
    modality: &Modality,
    sources: &[Source],
    candidates: &[String],
    templates: &[String],
) -> Result<(Vec<f32>, Vec<f32>), ApiError> {
    let Some(head) = model.contrastive_head else {
        return Err(ApiError::invalid("candidates", "a model without a shared space", "CLIP, SigLIP or CLAP"));
    };
    let default = [if *modality == Modality::AUDIO { "This is a sound of {}." } else { "a photo of a {}" }.to_owned()];
    let templates = if templates.is_empty() { &default[..] } else { templates };
    let mut classes = Vec::with_capacity(candidates.len());
    for label in candidates {
        let texts: Vec<Source> = templates.iter().map(|t| Source::Text(t.replace("{}", label.trim()))).collect();
        classes.push(model.embed(&Modality::TEXT, &texts, None)?.mean_dim(&[0], false)?);
    }
    let classes = Tensor::stack(&classes.iter().collect::<Vec<_>>(), 0)?.normalize()?;
    let cosines = model.embed(modality, sources, None)?.matmul(&classes.transpose(0, 1)?)?;
    let logits = cosines.mul_scalar(head.logit_scale)?.add_scalar(head.logit_bias.unwrap_or(0.0))?;
    probabilities(&logits, head.logit_bias.is_some())
}
