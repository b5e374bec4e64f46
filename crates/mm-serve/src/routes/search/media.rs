//! `/media`: the files of rows that `mm index` wrote.
#![allow(unused_qualifications, reason = "utoipa writes the path of the parameters in full")]

use super::index_of;
use crate::{
    blocking::blocking,
    error::{ApiError, Kind},
    state::Shared,
};
use axum::{
    extract::{Query as UrlQuery, State, rejection::QueryRejection},
    http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
    response::{IntoResponse, Response},
};
use mm_core::Modality;
use mm_index::Payload;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use utoipa::{IntoParams, ToSchema};

/// A file of a row.
#[derive(Serialize, ToSchema)]
pub(super) struct MediaLink {
    modality: String,
    field: String,
    url: String,
}

/// The files that a row's payload names.
pub(super) fn links(id: &str, payload: &Payload) -> Vec<MediaLink> {
    let link = |(field, value): (&String, &Value)| {
        let (modality, _) = media_path(value)?;
        let url = format!("/media?id={}&field={}", percent_encode(id), percent_encode(field));
        Some(MediaLink { modality: modality.to_string(), field: field.clone(), url })
    };
    payload.iter().filter_map(link).collect()
}

/// The image, audio or video file that a field names; of a list, the first.
pub(super) fn media_path(value: &Value) -> Option<(Modality, PathBuf)> {
    let first = value.as_array().and_then(|list| list.first()).unwrap_or(value);
    let path = Path::new(first.as_str()?);
    let modality = mm_tasks::indexing::file_modality(path).filter(|modality| *modality != Modality::TEXT)?;
    path.is_absolute().then(|| (modality, path.to_owned()))
}

/// Text as a value in the query of a URL.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out += &format!("%{byte:02X}");
        }
    }
    out
}

/// Which file of which row.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MediaQuery {
    /// The row's id.
    id: String,
    /// The field of its payload that names the file.
    field: String,
}

/// The file of a row.
#[utoipa::path(get, path = "/media", tag = "search", params(MediaQuery), responses(
    (status = 200, description = "The file"),
    (status = 400, description = "A query without `id` or `field`"),
    (status = 404, description = "No such row, field or file")
))]
pub(crate) async fn media(
    State(state): State<Shared>,
    query: Result<UrlQuery<MediaQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let wrong = |rejection: QueryRejection| ApiError::new(Kind::Invalid, rejection.body_text());
    let UrlQuery(MediaQuery { id, field }) = query.map_err(wrong)?;
    let row = index_of(&state)?.row(id).await?;
    let none = |what: &str| ApiError::new(Kind::NotFound, format!("{what} in field {field:?} of this row"));
    // Rows that came over HTTP have no version: they cannot make the server send its files.
    let path = row.payload.get(&field).and_then(media_path).filter(|_| row.version.is_some());
    let path = path.map(|(_, path)| path).ok_or_else(|| none("no image, audio or video file"))?;
    let kind = content_type(path.extension().and_then(|e| e.to_str()).unwrap_or_default());
    let bytes =
        blocking(move || Ok(std::fs::read(path).ok())).await?.ok_or_else(|| none("there is no longer a file"))?;
    // A file is what its row says, never a page or script.
    Ok(([(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff")], bytes).into_response())
}

/// The media type of a file; SVG, which may hold scripts, is sent as plain bytes.
fn content_type(extension: &str) -> &'static str {
    match extension.to_ascii_lowercase().as_str() {
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "bmp" => "image/bmp",
        "tif" | "tiff" => "image/tiff",
        "wav" => "audio/wav",
        "mp3" => "audio/mpeg",
        "ogg" | "oga" | "opus" => "audio/ogg",
        "flac" => "audio/flac",
        "m4a" => "audio/mp4",
        "mp4" | "m4v" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}
