//! `/classify`: by a model's own classes, or zero-shot by candidate labels.

use super::body::Body;
use crate::{
    embed::{Preparation, check_count, embed},
    encode::{self, LongTexts, Processing},
    engine::{Capability, ModelHandle, ModelInfo, Output},
    error::ApiError,
    media::{MediaTotals, ValueReader},
    state::{AppState, Shared},
};
use axum::{Json, extract::State};
use mm_core::{Modality, Source, Tensor};
use mm_repr::CandidateLabels;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// Values to be classified: of one modality.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyRequest {
    /// Texts; not with candidates.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    text: OneOrMore,
    /// Images: data URI, base64 or URL.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    image: OneOrMore,
    /// Audio.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    audio: OneOrMore,
    /// Video.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    video: OneOrMore,
    /// Candidate labels, for models that embed text in the same space; the model's own classes when empty.
    #[serde(default)]
    candidates: Vec<String>,
    /// Texts in which `{}` is replaced by each label; `a photo of a {}` when empty. Only with candidates.
    #[serde(default)]
    templates: Vec<String>,
    /// Number of classes for each value.
    #[serde(default = "super::body::default_k")]
    #[schema(minimum = 1)]
    k: usize,
    /// The model; the first that classifies so when absent.
    #[serde(default)]
    model: Option<String>,
}

impl ClassifyRequest {
    /// The values, and their modality.
    fn values(&self) -> Result<(Modality, &[String]), ApiError> {
        let given = [
            (Modality::TEXT, &self.text),
            (Modality::IMAGE, &self.image),
            (Modality::AUDIO, &self.audio),
            (Modality::VIDEO, &self.video),
        ]
        .map(|(modality, values)| (modality, values.as_slice()));
        let mut given = given.into_iter().filter(|(_, values)| !values.is_empty());
        match (given.next(), given.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(ApiError::invalid("image", "none", "texts, images, audio or video")),
            _ => Err(ApiError::invalid("image", "several modalities", "one of text, image, audio and video")),
        }
    }

    /// Refuses options that mean nothing with the others.
    fn check(&self, modality: &Modality) -> Result<(), ApiError> {
        if self.k == 0 {
            return Err(ApiError::invalid("k", 0, "at least 1"));
        }
        if self.candidates.is_empty() && !self.templates.is_empty() {
            let found = format!("{} without `candidates`", self.templates.len());
            return Err(ApiError::invalid("templates", found, "none, or candidate labels to put into them"));
        }
        if !self.candidates.is_empty() && *modality == Modality::TEXT {
            let expected = "images, audio or video; texts have the model's own classes";
            return Err(ApiError::invalid("candidates", "labels for texts", expected));
        }
        Ok(())
    }
}

/// A value, or a list of values.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMore {
    One(String),
    Several(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl OneOrMore {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
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

/// Classifies texts, images, audio or video.
#[utoipa::path(post, path = "/classify", tag = "mm", request_body(
    content = ClassifyRequest, example = json!({"image": ["data:image/png;base64,…"], "candidates": ["dog", "cat"]})
), responses(
    (status = 200, description = "The most probable classes of each value", body = ClassifyResponse),
    (status = 400, description = "A value that cannot be read"),
    (status = 404, description = "No such model"),
    (status = 413, description = "More than the server takes")
))]
pub(crate) async fn classify(
    State(state): State<Shared>,
    Body(request): Body<ClassifyRequest>,
) -> Result<Json<ClassifyResponse>, ApiError> {
    let (modality, values) = request.values()?;
    request.check(&modality)?;
    let zero_shot = !request.candidates.is_empty();
    let capability = if zero_shot { Capability::ZeroShot } else { Capability::Classify };
    let (model, info) = state.pool.find_for(request.model.as_deref(), capability, std::slice::from_ref(&modality))?;
    check_count(&state, values.len())?;
    check_count(&state, request.candidates.len().max(1))?;
    let (mut reader, mut sources) = (ValueReader::new(&state), Vec::with_capacity(values.len()));
    for (index, value) in values.iter().enumerate() {
        sources.push(reader.read(&modality, value, &format!("{modality}[{index}]")).await?);
    }
    let ClassifyRequest { candidates, templates, k, .. } = request;
    let classes = if zero_shot {
        let default = [CandidateLabels::default_template(&modality).to_owned()];
        let templates = if templates.is_empty() { &default[..] } else { &templates };
        by_candidates(&state, (model, &info), (&modality, sources), &candidates, templates).await?
    } else {
        by_own_classes(&state, (model, &info), (&modality, sources), (modality.name(), LongTexts::Cut)).await?
    };
    let score = |(class, rank): (mm_repr::ClassScore, usize)| ClassScore {
        rank,
        label: class.label,
        score: class.score,
        logit: class.logit,
    };
    let classified = |(index, classes): (usize, Vec<mm_repr::ClassScore>)| Classified {
        index,
        results: classes.into_iter().take(k).zip(1..).map(score).collect(),
    };
    let data = classes.into_iter().enumerate().map(classified).collect();
    Ok(Json(ClassifyResponse { data, model: info.name.clone() }))
}

/// The model's own classes of values of a modality, the most probable first; errors name `field`.
pub(super) async fn by_own_classes(
    state: &AppState,
    (model, info): (&ModelHandle, &ModelInfo),
    (modality, sources): (&Modality, Vec<Source>),
    (field, long_texts): (&str, LongTexts),
) -> Result<Vec<Vec<mm_repr::ClassScore>>, ApiError> {
    let processing = Processing {
        processor: info.processor(modality)?.clone(),
        modality: modality.clone(),
        field: field.to_owned(),
        long_texts,
        max_audio_seconds: state.limits.max_audio_seconds,
        totals: Arc::new(MediaTotals::new(&state.limits)),
    };
    let sources = sources.into_iter().enumerate().collect();
    let samples = state.decode(move |cancellation| processing.run(sources, cancellation)).await?;
    let pending = encode::submit(model, info.generation, (modality, Output::Classes), samples)?;
    Ok(encode::rows(pending).await?.iter().map(|logits| info.classes.rank(logits)).collect())
}

/// Candidate labels of values of a modality, the most probable first.
async fn by_candidates(
    state: &AppState,
    (model, info): (&ModelHandle, &ModelInfo),
    (modality, sources): (&Modality, Vec<Source>),
    labels: &[String],
    templates: &[String],
) -> Result<Vec<Vec<mm_repr::ClassScore>>, ApiError> {
    let head = info.contrastive_head.ok_or_else(|| ApiError::internal("a model without a space for labels"))?;
    let prompts = CandidateLabels::prompts(labels, templates);
    let (count, max) = (prompts.len(), state.limits.max_inputs);
    if count > max {
        let found = format!("{} labels in {} templates", labels.len(), templates.len());
        return Err(ApiError::too_large("candidates", found, format!("at most {max} texts")));
    }
    let texts = prompts.into_iter().map(|prompt| (Modality::TEXT, Source::Text(prompt))).collect();
    let texts = embed(state, (model, info), texts, Preparation::of("candidates")).await?.vectors;
    let values = sources.into_iter().map(|source| (modality.clone(), source)).collect();
    let values = embed(state, (model, info), values, Preparation::of(modality.name())).await?.vectors;
    let candidates = CandidateLabels::new(labels, &matrix(&texts)?)?;
    Ok(candidates.rank(head, &matrix(&values)?)?)
}

/// Rows as a tensor, `[rows, dim]`.
fn matrix(rows: &[Vec<f32>]) -> mm_core::Result<Tensor> {
    let dim = rows.first().map_or(0, Vec::len);
    Tensor::from_vec(&rows.concat(), &[rows.len() as i64, dim as i64])
}
