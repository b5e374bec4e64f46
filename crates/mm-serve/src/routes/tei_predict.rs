//! `/predict` of text-embeddings-inference: classes of texts by a run.

use super::{
    predict::predictor,
    tei::{Inputs, TeiResult},
    tei_input::TeiBody,
};
use crate::{embed::check_count, engine::Capability, error::ApiError, media::read_source, state::Shared};
use axum::{Json, extract::State};
use mm_core::Modality;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    /// The model; the first that predicts when absent.
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

/// Classes of texts by a run of `mm fit` or `mm train`.
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
    let (model, _) = state.pool.find(request.model.as_deref(), Capability::Predict)?;
    let mut values = Vec::with_capacity(texts.len());
    for text in texts {
        values.push(BTreeMap::from([(Modality::TEXT, read_source(&state, &Modality::TEXT, &text, "inputs").await?)]));
    }
    let raw_scores = request.raw_scores;
    let classes = model.call(move |model| {
        let predictor = predictor(model)?;
        predictor.find_modalities(&["text".to_owned()])?;
        let classes = &predictor.target().classes;
        if classes.is_empty() {
            return Err(ApiError::invalid("model", "a run that predicts numbers", "one that predicts classes"));
        }
        let predictions = predictor.predict_values(values, false)?;
        let scores = predictions.into_iter().map(|p| if raw_scores { p.logits } else { p.probabilities });
        Ok(scores.map(|scores| ranked(classes, scores)).collect::<Vec<_>>())
    });
    let mut classes = classes.await?;
    Ok(Json(if is_single {
        PredictResponse::One(classes.pop().unwrap_or_default())
    } else {
        PredictResponse::Several(classes)
    }))
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
