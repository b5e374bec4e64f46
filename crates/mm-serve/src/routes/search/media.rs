//! `/media`: the files of rows that `mm index` wrote.
#![allow(unused_qualifications, reason = "utoipa writes the path of the parameters in full")]

use super::index_of;
use crate::{
    blocking::blocking,
    error::{ApiError, Kind},
    state::Shared,
};
use axum::{
    Json,
    body::Body,
    extract::{Query as UrlQuery, Request, State, rejection::QueryRejection},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS},
    },
    response::{IntoResponse, Response},
};
use mm_core::Modality;
use mm_index::Payload;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tower_http::services::ServeFile;
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

/// Which pages may show what is sent.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The file of a row, whole or in part.
#[utoipa::path(get, path = "/media", tag = "search", params(MediaQuery), responses(
    (status = 200, description = "The file"),
    (status = 206, description = "The part of it that `Range` names"),
    (status = 304, description = "The file has not changed since `If-Modified-Since`"),
    (status = 400, description = "A query without `id` or `field`"),
    (status = 404, description = "No such row, field or file"),
    (status = 412, description = "The file has changed since `If-Unmodified-Since`"),
    (status = 416, description = "A `Range` that is not in the file, or several of them")
))]
pub(crate) async fn media(
    State(state): State<Shared>,
    query: Result<UrlQuery<MediaQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, ApiError> {
    let wrong = |rejection: QueryRejection| ApiError::new(Kind::Invalid, rejection.body_text());
    let UrlQuery(MediaQuery { id, field }) = query.map_err(wrong)?;
    let row = index_of(&state)?.row(id).await?;
    let none = |what: &str| ApiError::new(Kind::NotFound, format!("{what} in field {field:?} of this row"));
    // Rows that came over HTTP have no version: they cannot make the server send its files.
    let path = row.payload.get(&field).and_then(media_path).filter(|_| row.version.is_some());
    let path = path.map(|(_, path)| path).ok_or_else(|| none("no image, audio or video file"))?;
    let kind = content_type(path.extension().and_then(|e| e.to_str()).unwrap_or_default());
    let gone = || none("there is no longer a file");
    let file = blocking(move || Ok(Some(path).filter(|path| path.is_file()))).await?.ok_or_else(gone)?;
    let mut response = send(file, request).await.map_err(|_| gone())?;
    // A file is what its row says, never a page or script, and is shown by the server's own pages alone.
    for (name, value) in
        [(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff"), (CROSS_ORIGIN_RESOURCE_POLICY, "same-origin")]
    {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Sends a file as it is read, or the part that the request names.
async fn send(file: PathBuf, mut request: Request) -> std::io::Result<Response> {
    // Whether the file is still that of a part which the client has is not known, so it gets the whole.
    if request.headers().contains_key(IF_RANGE) {
        request.headers_mut().remove(RANGE);
    }
    let response = ServeFile::new(file).try_call(request).await?;
    // So it says where the file cannot be read.
    if response.status() == StatusCode::NOT_FOUND {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    if response.status() == StatusCode::RANGE_NOT_SATISFIABLE || response.status() == StatusCode::PRECONDITION_FAILED {
        let error = ApiError::new(Kind::Invalid, "the range, or the condition, is not one of this file");
        return Ok((response.status(), Json(error.body())).into_response());
    }
    Ok(response.map(Body::new))
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
