//! `/search`, and what the store holds.

pub(super) mod media;
pub(super) mod rows;

use super::body::Body;
use crate::{
    embed::embed_value,
    error::{ApiError, Kind},
    index::Index,
    media::given,
    state::Shared,
};
use axum::{Json, extract::State};
use media::MediaLink;
use mm_index::{Example, Filter, Hit, Query, Step};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::time::Instant;
use utoipa::ToSchema;

/// What is searched for: one of `text`, `image`, `audio`, `video`, `like`, or `words` alone.
#[derive(Deserialize, ToSchema, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    /// Rows whose vectors are similar to that of a text.
    #[serde(default)]
    text: Option<String>,
    /// … of an image: data URI, base64 or URL.
    #[serde(default)]
    image: Option<String>,
    /// … of a recording.
    #[serde(default)]
    audio: Option<String>,
    /// … of a video.
    #[serde(default)]
    video: Option<String>,
    /// … of the row of this id.
    #[serde(default)]
    like: Option<String>,
    /// Rows whose text has any of these words, by BM25; combined by rank with a query by vectors.
    #[serde(default)]
    words: Option<String>,
    /// Whether the words of `text` are searched too.
    #[serde(default)]
    hybrid: bool,
    /// The named vectors that are searched; all of the model's when empty.
    #[serde(default)]
    vectors: Vec<String>,
    /// A condition, for instance `year > 2000 and kind in ("bird", "cat")`.
    #[serde(default)]
    filter: Option<String>,
    /// Number of results; 10, or the server's maximum where that is less, when absent.
    #[serde(default)]
    #[schema(value_type = usize)]
    k: Option<usize>,
}

/// Number of results by default.
const DEFAULT_K: usize = 10;

/// What was found, best first.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchResponse {
    results: Vec<SearchResult>,
    /// How it was searched.
    #[schema(value_type = Vec<Object>)]
    steps: Vec<Step>,
    /// Wall time, the query's vector included.
    seconds: f64,
}

#[derive(Serialize, ToSchema)]
struct SearchResult {
    rank: usize,
    id: String,
    score: f64,
    text: Option<String>,
    #[schema(value_type = Object)]
    payload: Map<String, Value>,
    /// The files of the row.
    media: Vec<MediaLink>,
}

/// The index of the server.
fn index_of(state: &Shared) -> Result<&Index, ApiError> {
    let none =
        || ApiError::new(Kind::NotFound, "this server has no index; start it with --store").with_code("no_index");
    state.index.as_ref().ok_or_else(none)
}

/// Searches by text, image, audio, video, words, or the vectors of a row.
#[utoipa::path(post, path = "/search", tag = "search", request_body(
    content = SearchRequest, example = json!({"text": "a dog on a beach", "k": 5})
), responses(
    (status = 200, description = "The rows, best first", body = SearchResponse),
    (status = 400, description = "A query or filter that the store cannot take"),
    (status = 404, description = "The server has no index, or not its model"),
    (status = 413, description = "More than the server takes")
))]
pub(crate) async fn search(
    State(state): State<Shared>,
    Body(request): Body<SearchRequest>,
) -> Result<Json<SearchResponse>, ApiError> {
    let started = Instant::now();
    let index = index_of(&state)?;
    let max = state.limits.max_results;
    let k = request.k.unwrap_or(DEFAULT_K.min(max));
    if k == 0 || k > max {
        return Err(ApiError::invalid("k", k, format!("1 to {max}")));
    }
    let filter = request.filter.as_deref().filter(|text| !text.trim().is_empty()).map(Filter::parse).transpose();
    let filter =
        filter.map_err(|error| ApiError::new(Kind::Invalid, format!("filter: {error}")).with_param("filter"))?;
    let mut queries = vector_queries(&state, index, &request).await?;
    let words = if request.hybrid { request.words.or(request.text) } else { request.words };
    queries.extend(words.filter(|words| !words.trim().is_empty()).map(Query::text));
    if queries.is_empty() {
        return Err(ApiError::invalid("text", "no query", "one of text, image, audio, video, like and words"));
    }
    let mut query = Query::hybrid(queries, k);
    query.filter = filter;
    let answer = index.query(query).await?;
    let results = answer.hits.into_iter().zip(1..).map(|(hit, rank)| result(hit, rank)).collect();
    Ok(Json(SearchResponse { results, steps: answer.steps, seconds: started.elapsed().as_secs_f64() }))
}

/// A query for each named vector that is searched; none for a search by words alone.
async fn vector_queries(state: &Shared, index: &Index, request: &SearchRequest) -> Result<Vec<Query>, ApiError> {
    let given = given([&request.text, &request.image, &request.audio, &request.video]);
    if given.len() + usize::from(request.like.is_some()) > 1 {
        return Err(ApiError::invalid("text", "several queries", "one of text, image, audio, video and like"));
    }
    if let Some(id) = &request.like {
        return like(index, id.clone(), &request.vectors).await;
    }
    let Some((modality, value)) = given.into_iter().next() else { return Ok(Vec::new()) };
    let (model, info, known) = index.model(&state.pool)?;
    let names = chosen(&known, &request.vectors)?;
    let vector = embed_value(state, model, &info, modality, value).await?;
    Ok(names.iter().map(|name| Query::nearest(name, vector.clone())).collect())
}

/// The named vectors that a request chooses among those that there are.
fn chosen(known: &[String], wanted: &[String]) -> Result<Vec<String>, ApiError> {
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        let error = ApiError::unknown("named vector", unknown, known.iter().map(String::as_str));
        return Err(error.with_kind(Kind::Invalid).with_param("vectors"));
    }
    Ok(if wanted.is_empty() { known.to_vec() } else { wanted.to_vec() })
}

/// Rows that are similar to a row, by each named vector that it has.
async fn like(index: &Index, id: String, wanted: &[String]) -> Result<Vec<Query>, ApiError> {
    let row = index.row(id.clone()).await?;
    let known: Vec<String> = row.vectors.keys().cloned().collect();
    let names = chosen(&known, wanted)?;
    Ok(names.iter().map(|name| Query::recommend(name, vec![Example::Id(id.clone())], Vec::new())).collect())
}

fn result(hit: Hit, rank: usize) -> SearchResult {
    let Hit { id, score, payload, text, .. } = hit;
    SearchResult { rank, score, text, media: media::links(&id, &payload), id, payload }
}

/// What the store holds.
#[derive(Serialize, ToSchema)]
pub(crate) struct IndexResponse {
    rows: usize,
    /// What a query can be.
    modalities: Vec<String>,
    /// Whether rows have text that is searched by words.
    words: bool,
    /// The fields that filters know.
    fields: Vec<String>,
    /// How many results a search may ask for.
    max_results: usize,
}

/// What the store holds, and what it can be searched by.
#[utoipa::path(get, path = "/index", tag = "search", responses(
    (status = 200, description = "Counts and fields", body = IndexResponse),
    (status = 404, description = "The server has no index")
))]
pub(crate) async fn index(State(state): State<Shared>) -> Result<Json<IndexResponse>, ApiError> {
    let index = index_of(&state)?;
    let stats = index.stats().await?;
    // Without its model, words can be searched.
    let modalities =
        index.model(&state.pool).map(|(_, info, _)| info.modalities.iter().map(ToString::to_string).collect());
    Ok(Json(IndexResponse {
        rows: stats.rows,
        modalities: modalities.unwrap_or_default(),
        words: stats.texts > 0,
        fields: stats.fields,
        max_results: state.limits.max_results,
    }))
}
