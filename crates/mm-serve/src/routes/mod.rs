//! The routes, one file each; a route is registered by one line in [`router`].

mod answer;
mod body;
mod caption;
mod classify;
mod docs;
mod health;
mod mcp;
mod middleware;
mod openai;
mod origin;
mod page;
mod predict;
mod search;
mod tei;
mod tei_input;
mod tei_predict;
mod tei_rerank;

use crate::{
    error::{ApiError, Kind},
    state::Shared,
};
use axum::{Json, Router, extract::DefaultBodyLimit, http::HeaderMap, middleware as layers, routing::get};
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What `/openapi.json` says about the server as a whole.
#[derive(OpenApi)]
#[openapi(info(
    title = "mm serve",
    description = "Models, runs and indexes of mm: the routes of OpenAI and text-embeddings-inference, and mm's own."
), paths(mcp::description), tags(
    (name = "openai", description = "Routes of OpenAI"),
    (name = "text-embeddings-inference", description = "Routes of text-embeddings-inference"),
    (name = "mm", description = "Routes of mm"),
    (name = "search", description = "Search in an index"),
    (name = "mcp", description = "Tools for language models"),
    (name = "probes", description = "Probes and metrics"),
))]
struct ApiDocument;

/// The routes that `/openapi.json` describes.
fn documented() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(ApiDocument::openapi())
        .routes(routes!(openai::embeddings::embeddings))
        .routes(routes!(openai::models::models))
        .routes(routes!(openai::models::model))
        .routes(routes!(openai::chat::chat))
        .routes(routes!(openai::transcriptions::transcriptions))
        .routes(routes!(tei::embed))
        .routes(routes!(tei::embed_all))
        .routes(routes!(tei_rerank::rerank))
        .routes(routes!(tei::similarity))
        .routes(routes!(tei_predict::predict))
        .routes(routes!(tei::info))
        .routes(routes!(classify::classify))
        .routes(routes!(caption::caption))
        .routes(routes!(answer::answer))
        .routes(routes!(predict::predict))
        .routes(routes!(search::search))
        .routes(routes!(search::index))
        .routes(routes!(search::media::media))
        .routes(routes!(search::rows::upsert))
        .routes(routes!(search::rows::delete))
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
}

/// Every route with its limits.
pub(crate) fn router(state: &Shared) -> Router {
    let (router, document) = documented().split_for_parts();
    let docs = docs::DocsPage::new(&document, !state.keys.are_none());
    router
        .route("/openapi.json", get(move || std::future::ready(Json(document.clone()))))
        .route("/docs", get(move |headers: HeaderMap| std::future::ready(docs.answer(&headers))))
        .route("/", get(page::page))
        .route("/mcp", mcp::route(state))
        .fallback(|uri: axum::http::Uri| async move {
            ApiError::new(Kind::NotFound, format!("no route {}; GET /openapi.json lists them", uri.path()))
        })
        .method_not_allowed_fallback(|uri: axum::http::Uri| async move {
            let error = ApiError::new(Kind::Method, "this route takes another method; GET /openapi.json lists them");
            tei::refusal(uri.path(), error)
        })
        .layer(layers::from_fn_with_state(state.clone(), middleware::admit))
        .layer(layers::from_fn_with_state(state.clone(), middleware::observe))
        // Outside of what reads the bodies.
        .layer(DefaultBodyLimit::max(state.limits.max_body_bytes))
        .with_state(state.clone())
}
