//! `/upsert` and `/delete`.

use super::{index_of, media::media_path};
use crate::{
    embed::{check_count, embed},
    error::ApiError,
    media::read_source,
    routes::body::Body,
    state::Shared,
};
use axum::{Json, extract::State};
use mm_core::Modality;
use mm_index::Row;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Rows to be written: embedded by the store's model.
#[derive(Deserialize, ToSchema)]
pub(crate) struct UpsertRequest {
    rows: Vec<UpsertRow>,
}

/// A row: its values become the named vectors of their modality.
#[derive(Deserialize, ToSchema)]
struct UpsertRow {
    id: String,
    /// The text, which is embedded where the store has vectors of texts, and searched by words.
    #[serde(default)]
    text: Option<String>,
    /// An image: data URI, base64 or URL. Only its vector is kept.
    #[serde(default)]
    image: Option<String>,
    /// A recording. Only its vector is kept.
    #[serde(default)]
    audio: Option<String>,
    /// Fields that filters see and results show.
    #[serde(default)]
    #[schema(value_type = Object)]
    payload: Map<String, Value>,
}

/// How many rows were written or deleted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Changed {
    rows: usize,
}

/// Writes rows; a row replaces that of the same id. When this returns, they are on disk.
#[utoipa::path(post, path = "/upsert", tag = "search", request_body = UpsertRequest, responses(
    (status = 200, description = "The rows are kept", body = Changed),
    (status = 400, description = "A row that the store cannot take, or a server that does not change its store"),
    (status = 503, description = "Another program writes the store, or its database is away"),
    (status = 507, description = "The disk of the store is full")
))]
pub(crate) async fn upsert(
    State(state): State<Shared>,
    Body(request): Body<UpsertRequest>,
) -> Result<Json<Changed>, ApiError> {
    let index = index_of(&state)?;
    index.check_writable()?;
    check_count(&state, request.rows.len())?;
    let (model, info, names) = index.model(&state.pool)?;
    let (mut inputs, mut targets, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (number, row) in request.rows.into_iter().enumerate() {
        for (name, value) in [("text", &row.text), ("image", &row.image), ("audio", &row.audio)] {
            let Some(value) = value.as_deref().filter(|_| names.iter().any(|known| known == name)) else { continue };
            let modality = Modality::from(name);
            let source = read_source(&state, &modality, value, &format!("rows[{number}].{name}")).await?;
            inputs.push((modality, source));
            targets.push((number, name));
        }
        if let Some((field, value)) = row.payload.iter().find(|(_, value)| media_path(value).is_some()) {
            let param = format!("rows[{number}].payload.{field}");
            return Err(ApiError::invalid(
                &param,
                value,
                "no path of a file: files are shown of rows that `mm index` wrote",
            ));
        }
        rows.push(Row { id: row.id, vectors: BTreeMap::new(), payload: row.payload, text: row.text, version: None });
    }
    if !inputs.is_empty() {
        let vectors = embed(&state, model, &info, inputs, None).await?.vectors;
        for ((number, name), vector) in targets.into_iter().zip(vectors) {
            rows[number].vectors.insert(name.to_owned(), vector.into());
        }
    }
    let count = rows.len();
    index.upsert(rows).await?;
    Ok(Json(Changed { rows: count }))
}

/// Rows to be deleted.
#[derive(Deserialize, ToSchema)]
pub(crate) struct DeleteRequest {
    ids: Vec<String>,
}

/// Deletes rows. When this returns, they are gone from disk.
#[utoipa::path(post, path = "/delete", tag = "search", request_body = DeleteRequest, responses(
    (status = 200, description = "How many there were", body = Changed),
    (status = 400, description = "A server that does not change its store"),
    (status = 503, description = "Another program writes the store, or its database is away"),
    (status = 507, description = "The disk of the store is full")
))]
pub(crate) async fn delete(
    State(state): State<Shared>,
    Body(request): Body<DeleteRequest>,
) -> Result<Json<Changed>, ApiError> {
    check_count(&state, request.ids.len())?;
    let rows = index_of(&state)?.delete(request.ids).await?;
    Ok(Json(Changed { rows }))
}
