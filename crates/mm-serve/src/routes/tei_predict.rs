//! `/predict` of text-embeddings-inference: classes of texts by a run, or by a checkpoint with a
//! classifier.

use super::{
    classify::by_own_classes,
    predict::predictor,
    tei::{Inputs, TeiResult},
    tei_input::TeiBody,
};
use crate::{
    embed::check_count,
    engine::{Capability, ModelHandle, ModelInfo},
    error::ApiError,
    media::read_source,
    state::{AppState, Shared},
};
use axum::{Json, extract::State};
use mm_core::{Modality, Source};
use mm_tasks::prediction::Predictor;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};
use utoipa::ToSchema;

/// Texts to be classified.
#[derive(Deserialize, ToSchema)]
#[schema(as = TextPredictRequest)]
pub(crate) struct PredictRequest {
    /// A text, or a list of texts (each may be a list of one).
    inputs: PredictInputs,
    /// Logits instead of probabilities.
    #[serde(default)]
    raw_scores: bool,
    /// The model; the first that predicts or classifies texts when absent.
    #[serde(default)]
    model: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum PredictInputs {
    One(String),
    Several(Vec<Inputs>),
}

/// A class of a text.
#[derive(Serialize, ToSchema)]
#[schema(as = TextClassScore)]
pub(crate) struct ClassScore {
    score: f64,
    label: String,
}

/// The classes of one text, or those of each of several; most probable first.
#[derive(Serialize, ToSchema)]
#[schema(as = TextPredictResponse)]
#[serde(untagged)]
pub(crate) enum PredictResponse {
    One(Vec<ClassScore>),
    Several(Vec<Vec<ClassScore>>),
}

/// Classes of texts by a run of `mm fit` or `mm train`, or by a checkpoint with a classifier.
#[utoipa::path(post, path = "/predict", tag = "text-embeddings-inference", request_body(
    content = PredictRequest, example = json!({"inputs": "a superb day"})
), responses(
    (status = 200, description = "The classes of each text", body = PredictResponse),
    (status = 413, description = "More than the server takes"),
    (status = 422, description = "Not what the model takes")
))]
pub(crate) async fn predict(
    State(state): State<Shared>,
    TeiBody(request): TeiBody<PredictRequest>,
) -> TeiResult<PredictResponse> {
    let (is_single, texts) = match request.inputs {
        PredictInputs::One(text) => (true, vec![text]),
        PredictInputs::Several(items) => (false, items.into_iter().map(single_text).collect::<Result<_, _>>()?),
    };
    check_count(&state, texts.len())?;
    let (model, info) = find_model(&state, request.model.as_deref())?;
    let mut sources = Vec::with_capacity(texts.len());
    for text in texts {
        sources.push(read_source(&state, &Modality::TEXT, &text, "inputs").await?);
    }
    let raw_scores = request.raw_scores;
    let mut classes = if info.can(Capability::Classify) {
        let classes = by_own_classes(&state, (model, &info), &Modality::TEXT, sources).await?;
        classes.into_iter().map(|classes| scores(classes, raw_scores)).collect()
    } else {
        model.call(move |model| by_run(predictor(model)?, sources, raw_scores)).await?
    };
    Ok(Json(if is_single {
        PredictResponse::One(classes.pop().unwrap_or_default())
    } else {
        PredictResponse::Several(classes)
    }))
}

/// The model of a name; without a name the first that predicts or classifies and takes texts.
fn find_model<'a>(state: &'a AppState, name: Option<&str>) -> Result<(&'a ModelHandle, Arc<ModelInfo>), ApiError> {
    let is_asked = |model: &ModelHandle| name.is_none_or(|name| name.is_empty() || name == model.name());
    for model in state.pool.models().iter().filter(|model| is_asked(model)) {
        let info = model.info()?;
        if info.modalities.contains(&Modality::TEXT)
            && (info.can(Capability::Predict) || info.can(Capability::Classify))
        {
            return Ok((model, info));
        }
    }
    // Its errors say what the model takes and can, or that there is none.
    state.pool.find(name, Capability::Predict)
}

/// The classes of a text as this route gives them.
fn scores(classes: Vec<mm_repr::ClassScore>, raw_scores: bool) -> Vec<ClassScore> {
    let score = |class: mm_repr::ClassScore| ClassScore {
        score: f64::from(if raw_scores { class.logit } else { class.score }),
        label: class.label,
    };
    classes.into_iter().map(score).collect()
}

fn by_run(predictor: &Predictor, texts: Vec<Source>, raw_scores: bool) -> Result<Vec<Vec<ClassScore>>, ApiError> {
    predictor.find_modalities(&["text".to_owned()])?;
    let classes = &predictor.target().classes;
    if classes.is_empty() {
        return Err(ApiError::invalid("model", "a run that predicts numbers", "one that predicts classes"));
    }
    let values = texts.into_iter().map(|text| BTreeMap::from([(Modality::TEXT, text)])).collect();
    let predictions = predictor.predict_values(values, false)?;
    let scores = predictions.into_iter().map(|p| if raw_scores { p.logits } else { p.probabilities });
    Ok(scores.map(|scores| ranked(classes, scores)).collect())
}

fn single_text(item: Inputs) -> Result<String, ApiError> {
    match <[String; 1]>::try_from(item.into_vec()) {
        Ok([text]) => Ok(text),
        Err(texts) => {
            Err(ApiError::invalid("inputs", format!("an item of {} texts", texts.len()), "one text for each item"))
        }
    }
}

/// Classes with their scores, the largest first.
fn ranked(classes: &[String], scores: Vec<f64>) -> Vec<ClassScore> {
    let mut ranked: Vec<ClassScore> =
        classes.iter().cloned().zip(scores).map(|(label, score)| ClassScore { score, label }).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked
}
