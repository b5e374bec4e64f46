//! `/predict/{model}`: the label column of new rows, by a run of `mm fit` or `mm train`.

use super::body::Body;
use crate::{
    embed::check_count,
    engine::{Capability, LoadedModel, Medium, ModelHandle, ModelInfo, RawMedium},
    error::ApiError,
    media::{ValueReader, prepare_readable},
    state::{AppState, Shared},
};
use axum::{
    Json,
    extract::{Path, State},
};
use mm_core::{Modality, Source};
use mm_data::{Cells, FailedSample};
use mm_tasks::prediction::{Predictor, RowPrediction};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use utoipa::ToSchema;

/// Rows to be predicted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PredictRequest {
    /// Objects with the columns of the training table: numbers, texts, and images, audio or video as data URI, base64
    /// or URL. Any value may be null.
    #[schema(value_type = Vec<Object>)]
    rows: Vec<Map<String, Value>>,
    /// Modalities to be ignored, whose columns may be absent.
    #[serde(default)]
    exclude_modalities: Vec<String>,
}

/// A prediction for each row.
#[derive(Serialize, ToSchema)]
pub(crate) struct PredictResponse {
    data: Vec<PredictedRow>,
    /// Values that could not be read; their rows were predicted from the others.
    failed: Vec<FailedValue>,
    model: String,
}

#[derive(Serialize, ToSchema)]
struct PredictedRow {
    index: usize,
    /// The row's own id, or its number from 1.
    id: String,
    /// The most probable class, the list of labels, or a number.
    #[schema(value_type = Object)]
    prediction: Value,
    /// The probability of each class; empty for a number.
    probabilities: BTreeMap<String, f64>,
    /// The modalities that the row had.
    present: Vec<String>,
}

#[derive(Serialize, ToSchema)]
struct FailedValue {
    index: usize,
    modality: String,
    reason: String,
}

/// Predicts the label column of rows.
#[utoipa::path(post, path = "/predict/{model}", tag = "mm", request_body(
    content = PredictRequest, example = json!({"rows": [{"review": "a superb day", "price": 95}]})
),
    params(("model" = String, Path, description = "The name of a run of `mm fit` or `mm train`")),
    responses(
        (status = 200, description = "A prediction for each row", body = PredictResponse),
        (status = 400, description = "Rows without the columns of the training table"),
        (status = 404, description = "No such model"),
        (status = 413, description = "More than the server takes")
    )
)]
pub(crate) async fn predict(
    State(state): State<Shared>,
    Path(name): Path<String>,
    Body(request): Body<PredictRequest>,
) -> Result<Json<PredictResponse>, ApiError> {
    let (model, info) = state.pool.find(Some(&name), Capability::Predict)?;
    check_count(&state, request.rows.len())?;
    let media = read_media(&state, (model, &info), &request).await?;
    let PredictRequest { rows, exclude_modalities } = request;
    let predicted = model.call(move |model| {
        let predictor = predictor(model)?;
        let excluded = predictor.find_modalities(&exclude_modalities)?;
        // Every text that would name a file was read before; were one not, it would be no value.
        let file = |modality: &Modality, text: &str| {
            let medium = media.get(&(modality.clone(), text.to_owned()));
            medium.map_or(Source::Value(Value::Null), |medium| medium.source().clone())
        };
        let manifest = predictor.read_rows(rows, &excluded, &file)?;
        let all: Vec<usize> = (0..manifest.rows.len()).collect();
        Ok(predictor.predict(&manifest, &all, &excluded)?)
    });
    let (predictions, failed) = predicted.await?;
    let row = |prediction: RowPrediction| PredictedRow {
        index: prediction.row - 1,
        id: prediction.id,
        prediction: prediction.prediction,
        probabilities: prediction.probabilities.into_iter().collect(),
        present: prediction.present.iter().map(ToString::to_string).collect(),
    };
    let value =
        |failed: FailedSample| FailedValue { index: failed.row - 1, modality: failed.modality, reason: failed.reason };
    Ok(Json(PredictResponse {
        data: predictions.into_iter().map(row).collect(),
        failed: failed.into_iter().map(value).collect(),
        model: info.name.clone(),
    }))
}

/// The predictor of a model that predicts.
pub(super) fn predictor(model: &LoadedModel) -> Result<&Predictor, ApiError> {
    match model {
        LoadedModel::Predictor(predictor) => Ok(predictor),
        _ => Err(ApiError::internal("a model that does not predict was asked to")),
    }
}

/// The images, recordings and videos in the rows, by modality and text: no row names a file of the server.
async fn read_media(
    state: &AppState,
    (model, info): (&ModelHandle, &Arc<ModelInfo>),
    request: &PredictRequest,
) -> Result<BTreeMap<(Modality, String), Medium>, ApiError> {
    let (rows, exclude): (Vec<Cells>, _) = (request.rows.clone(), request.exclude_modalities.clone());
    let named = model.call(move |model| {
        let predictor = predictor(model)?;
        let found = RefCell::new(BTreeSet::new());
        let note = |modality: &Modality, text: &str| {
            found.borrow_mut().insert((modality.clone(), text.to_owned()));
            Source::Value(Value::Null)
        };
        predictor.read_rows(rows, &predictor.find_modalities(&exclude)?, &note)?;
        Ok(found.into_inner())
    });
    let (named, mut reader) = (named.await?, ValueReader::new(state));
    let mut values = Vec::with_capacity(named.len());
    for (modality, text) in &named {
        if *modality == Modality::TEXT {
            return Err(ApiError::invalid("rows", "a URL of a text", "the text itself"));
        }
        let param = format!("rows: {modality}");
        let source = reader.read(modality, text, &param).await?;
        values.push(RawMedium { modality: modality.clone(), source, param });
    }
    let media = prepare_readable(state, (model, info), values).await?;
    Ok(named.into_iter().zip(media).collect())
}
