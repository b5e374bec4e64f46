//! `/v1/models`.

use crate::{
    engine::{Capability, ModelInfo},
    error::ApiError,
    state::Shared,
};
use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use utoipa::ToSchema;

/// The models of the server.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<ModelEntry>,
}

/// A model, with what it can do.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelEntry {
    id: String,
    /// `model`.
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Its family, as transformers names it, or the task of a run.
    family: String,
    /// The modalities that it takes.
    modalities: Vec<String>,
    /// What it can be asked for.
    capabilities: Vec<Capability>,
}

impl ModelEntry {
    fn new(info: &ModelInfo) -> Self {
        Self {
            id: info.name.clone(),
            object: "model",
            created: 0,
            owned_by: "mm",
            family: info.family.clone(),
            modalities: info.modalities.iter().map(ToString::to_string).collect(),
            capabilities: info.capabilities.clone(),
        }
    }
}

/// The models, and what each can do.
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses(
    (status = 200, description = "The models", body = ModelList),
    (status = 503, description = "Models are being loaded")
))]
pub(crate) async fn models(State(state): State<Shared>) -> Result<Json<ModelList>, ApiError> {
    let entries = state.pool.models().iter().map(|model| Ok(ModelEntry::new(&*model.info()?)));
    Ok(Json(ModelList { object: "list", data: entries.collect::<Result<_, ApiError>>()? }))
}

/// A model, and what it can do.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai",
    params(("model" = String, Path, description = "The name of a model")),
    responses(
        (status = 200, description = "The model", body = ModelEntry),
        (status = 404, description = "No such model"),
        (status = 503, description = "Models are being loaded")
    )
)]
pub(crate) async fn model(State(state): State<Shared>, Path(name): Path<String>) -> Result<Json<ModelEntry>, ApiError> {
    Ok(Json(ModelEntry::new(&*state.pool.by_name(&name)?.info()?)))
}
