//! `/predict` of text-embeddings-inference: classes of texts by a run, or by a checkpoint with a
//! classifier.

use super::{
    classify::by_own_classes,
    predict::predictor,
    tei::TeiResult,
    tei_input::{TextBody, TextOptions},
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
    /// A text (`"a"` or `["a"]`), whose classes are one list; or texts as lists of one (`[["a"], ["b"]]`), each with a list
    /// of its own. Pairs of texts (`["a", "b"]`) are refused.
    inputs: PredictInputs,
    /// Logits instead of probabilities.
    #[serde(default)]
    raw_scores: bool,
    #[serde(flatten)]
    options: TextOptions,
    /// The model; the first that predicts or classifies texts when absent.
    #[serde(default)]
    model: Option<String>,
}

/// As text-embeddings-inference reads them (`PredictInput` in `router/src/http/types.rs`).
#[derive(Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a text, or several as [[\"a\"], [\"b\"]]")]
enum PredictInputs {
    One(String),
    /// One text, or a pair.
    Item(Vec<String>),
    Items(Vec<Vec<String>>),
}

impl PredictInputs {
    /// The texts, and whether the answer is that of one text alone.
    fn read(self) -> Result<(bool, Vec<String>), ApiError> {
        let text_of = |(index, item)| single_text(item, &format!("inputs[{index}]"));
        match self {
            Self::One(text) => Ok((true, vec![text])),
            Self::Item(item) => Ok((true, vec![single_text(item, "inputs")?])),
            Self::Items(items) => Ok((false, items.into_iter().enumerate().map(text_of).collect::<Result<_, _>>()?)),
        }
    }
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
    content = PredictRequest, example = json!({"inputs": [["a superb day"], ["an awful day"]]})
), responses(
    (status = 200, description = "The classes of each text", body = PredictResponse),
    (status = 413, description = "More than the server takes, or with `truncate: false` than the model takes"),
    (status = 422, description = "Not what the model takes")
))]
pub(crate) async fn predict(
    State(state): State<Shared>,
    TextBody(request): TextBody<PredictRequest>,
) -> TeiResult<PredictResponse> {
    let PredictRequest { inputs, raw_scores, options, model } = request;
    options.refuse_prompt()?;
    options.check_direction()?;
    let (is_single, texts) = inputs.read()?;
    check_count(&state, texts.len())?;
    let (model, info) = find_model(&state, model.as_deref())?;
    let mut sources = Vec::with_capacity(texts.len());
    for text in texts {
        sources.push(read_source(&state, &Modality::TEXT, &text, "inputs").await?);
    }
    let mut classes = if info.can(Capability::Classify) {
        let (values, field) = ((&Modality::TEXT, sources), ("inputs", options.long_texts()));
        let classes = by_own_classes(&state, (model, &info), values, field).await?;
        classes.into_iter().map(|classes| scores(classes, raw_scores)).collect()
    } else {
        if !options.truncates() {
            return Err(ApiError::invalid("truncate", false, "true, or none: a run cuts longer texts").into());
        }
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

/// The text of a list of one: models classify no pairs.
fn single_text(item: Vec<String>, param: &str) -> Result<String, ApiError> {
    <[String; 1]>::try_from(item).map(|[text]| text).map_err(|texts| {
        let found = match texts.len() {
            0 => "no text".to_owned(),
            2 => "a pair of texts".to_owned(),
            count => format!("{count} texts in one list"),
        };
        ApiError::invalid(param, found, "a text; several are [[\"a\"], [\"b\"]]")
    })
}

/// Classes with their scores, the largest first.
fn ranked(classes: &[String], scores: Vec<f64>) -> Vec<ClassScore> {
    let mut ranked: Vec<ClassScore> =
        classes.iter().cloned().zip(scores).map(|(label, score)| ClassScore { score, label }).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    ranked
}
