//! `/upsert` and `/delete`.

use super::{index_of, media::media_path};
use crate::{
    embed::{Preparation, check_count, embed},
    error::{ApiError, shortened},
    media::ValueReader,
    routes::body::Body,
    state::Shared,
};
use axum::{Json, extract::State};
use mm_core::Modality;
use mm_index::Row;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use utoipa::ToSchema;

/// Rows to be written: embedded by the store's model.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpsertRequest {
    rows: Vec<UpsertRow>,
}

/// A row: its values become the named vectors of their modality.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UpsertRow {
    id: String,
    /// The text, which is embedded where the store has vectors of texts, and searched by words.
    #[serde(default)]
    text: Option<String>,
    /// An image, where the store has vectors of images: data URI, base64 or URL. Only its vector is kept.
    #[serde(default)]
    image: Option<String>,
    /// A recording, where the store has vectors of audio. Only its vector is kept.
    #[serde(default)]
    audio: Option<String>,
    /// Fields that filters see and results show.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    payload: Option<Map<String, Value>>,
}

impl UpsertRow {
    fn values(&self) -> [(&'static str, &Option<String>); 3] {
        [("text", &self.text), ("image", &self.image), ("audio", &self.audio)]
    }

    /// Refuses a row that the store would not keep as it is: without a value, or with one that it has no vectors of.
    fn check(&self, number: usize, names: &[String]) -> Result<(), ApiError> {
        let has = |name: &str| names.iter().any(|known| known == name);
        let payload = self.payload.iter().flatten();
        if let Some((field, value)) = payload.into_iter().find(|(_, value)| media_path(value).is_some()) {
            let expected = "no path of a file: files are shown of rows that `mm index` wrote";
            return Err(ApiError::invalid(
                &format!("rows[{number}].payload.{field}"),
                shortened(&value.to_string()),
                expected,
            ));
        }
        if self.values().iter().all(|(_, value)| value.is_none()) {
            let expected = "a text, an image or a recording to be searched by";
            return Err(ApiError::invalid(&format!("rows[{number}]"), "no value", expected));
        }
        if self.text.as_ref().is_some_and(|text| text.trim().is_empty()) {
            return Err(ApiError::invalid(&format!("rows[{number}].text"), "an empty text", "a text"));
        }
        // Without vectors of texts, they are searched by words.
        let lost = self.values().into_iter().find(|(name, value)| *name != "text" && value.is_some() && !has(name));
        lost.map_or(Ok(()), |(name, _)| {
            let expected = format!("none: the store has vectors of {} alone", names.join(" and "));
            Err(ApiError::invalid(&format!("rows[{number}].{name}"), "a value", expected))
        })
    }
}

/// Refuses rows of which one would replace another of the same request.
fn check_ids(rows: &[UpsertRow]) -> Result<(), ApiError> {
    let mut seen = HashMap::new();
    for (number, row) in rows.iter().enumerate() {
        if let Some(first) = seen.insert(row.id.as_str(), number) {
            let found = format!("{:?}, which rows[{first}] has too", shortened(&row.id));
            return Err(ApiError::invalid(&format!("rows[{number}].id"), found, "another id for each row"));
        }
    }
    Ok(())
}

/// How many rows were written or deleted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Changed {
    rows: usize,
}

/// Writes rows; a row replaces that of the same id. When this returns, they are on disk.
#[utoipa::path(post, path = "/upsert", tag = "search", request_body(
    content = UpsertRequest, example = json!({"rows": [{"id": "1", "text": "a dog", "payload": {"year": 2026}}]})
), responses(
    (status = 200, description = "The rows are kept", body = Changed),
    (status = 400, description = "A row that the store cannot take, or a server that does not change its store"),
    (status = 404, description = "The server has no index, or not its model"),
    (status = 413, description = "More than the server takes"),
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
    check_ids(&request.rows)?;
    for (number, row) in request.rows.iter().enumerate() {
        row.check(number, &names)?;
    }
    let mut reader = ValueReader::new(&state);
    let (mut inputs, mut targets, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    for (number, row) in request.rows.into_iter().enumerate() {
        for (name, value) in row.values() {
            let Some(value) = value.as_deref().filter(|_| names.iter().any(|known| known == name)) else { continue };
            let modality = Modality::from(name);
            let source = reader.read(&modality, value, &format!("rows[{number}].{name}")).await?;
            inputs.push((modality, source));
            targets.push((number, name));
        }
        let UpsertRow { id, text, payload, .. } = row;
        let payload = payload.unwrap_or_default();
        rows.push(Row { id, vectors: BTreeMap::new(), payload, text, version: None });
    }
    if !inputs.is_empty() {
        // What cannot be read is named by its row in the message.
        let embedded = embed(&state, (model, &info), inputs, Preparation::of("rows")).await;
        let embedded = embedded.map_err(|error| error.with_param("rows"));
        let vectors = embedded?.vectors;
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
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteRequest {
    ids: Vec<String>,
}

/// Deletes rows. When this returns, they are gone from disk.
#[utoipa::path(post, path = "/delete", tag = "search", request_body(
    content = DeleteRequest, example = json!({"ids": ["1"]})
), responses(
    (status = 200, description = "How many there were", body = Changed),
    (status = 400, description = "A server that does not change its store"),
    (status = 404, description = "The server has no index"),
    (status = 413, description = "More than the server takes"),
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
