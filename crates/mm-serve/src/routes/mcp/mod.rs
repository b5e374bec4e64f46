//! `/mcp`: what the server can do as tools of the Model Context Protocol, for language models and the programs around
//! them. Source: "Model Context Protocol", revisions 2024-11-05 to 2026-07-28, <https://modelcontextprotocol.io>.
//!
//! Every call stands alone: there are no sessions, and an answer is one JSON body.

mod inputs;
mod tools;

use crate::{
    error::ApiError,
    state::{AppState, Shared},
};
use axum::{
    body::Body,
    extract::Request,
    routing::{MethodRouter, post},
};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};
use tools::Tool;
use utoipa::ToSchema;

type Service = StreamableHttpService<Tools, NeverSessionManager>;

/// The route. Its other methods would be those of sessions.
pub(super) fn route(state: &Shared) -> MethodRouter<Shared> {
    // A page of another site must not reach a server on this machine: requests of browsers state their origin and are
    // refused, and a server that listens on this machine alone is asked by its own names.
    let mut config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .enforce_origin_validation()
        .with_max_request_body_bytes(state.limits.max_body_bytes);
    if !state.is_local {
        config = config.disable_allowed_hosts();
    }
    let shared = state.clone();
    let tools = move || Ok(Tools { state: shared.clone() });
    let service = Service::new(tools, std::sync::Arc::default(), config);
    post(move |request: Request| async move { service.handle(request).await.map(Body::new) })
}

/// A message of JSON-RPC 2.0.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes the body, which rmcp reads")]
struct Message {
    /// `2.0`.
    jsonrpc: String,
    /// A number of the client's, which the answer repeats; absent in a notification.
    id: Option<i64>,
    /// For instance `initialize`, `tools/list` or `tools/call`.
    method: String,
    /// Of `tools/call`: `name` and `arguments`, which are the fields of the route of that name.
    #[schema(value_type = Option<Object>)]
    params: Option<serde_json::Value>,
}

/// Calls the tools of the server by the Model Context Protocol (streamable HTTP, one JSON body for each call).
#[utoipa::path(post, path = "/mcp", tag = "mcp",
    description = "`initialize`, `tools/list` and `tools/call` with the tools `search`, `embed`, `caption`, `answer`, \
        `classify` and `transcribe`, as far as the models and the store can do them. What is wrong with the arguments of \
        a call is the tool's answer.",
    params(("Accept" = String, Header, description = "Both types of answers", example = "application/json, text/event-stream")),
    request_body(
        content = Message, description = "A message of JSON-RPC 2.0",
        example = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    ),
    responses(
        (status = 200, description = "The answer to the message", body = Object),
        (status = 202, description = "A notification was taken"),
        (status = 400, description = "Not a message of a protocol revision that the server speaks"),
        (status = 403, description = "A page in a browser asks"),
        (status = 406, description = "The header `Accept` does not name both types of answers"),
        (status = 413, description = "More than the server takes"),
        (status = 415, description = "Not JSON")
    )
)]
#[allow(dead_code, reason = "describes the route, which rmcp answers")]
pub(super) fn description() {}

/// The tools of a server.
struct Tools {
    state: Shared,
}

impl Tools {
    /// Those that its models and its store can do.
    fn offered(&self) -> impl Iterator<Item = Tool> {
        tools::all().into_iter().filter(|tool| tool.is_offered(&self.state))
    }
}

impl ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("mm", env!("CARGO_PKG_VERSION")).with_title("mm serve"))
            .with_instructions(instructions(&self.state))
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.offered().map(Tool::describe).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(tool) = self.offered().find(|tool| tool.name() == request.name) else {
            let names: Vec<&str> = self.offered().map(|tool| tool.name()).collect();
            let error = ApiError::unknown("tool", &request.name, names);
            return Err(ErrorData::invalid_params(error.message().to_owned(), None));
        };
        // What a caller can mend is the result of the tool; its client shows other errors to nobody.
        let result = match tool.call(self.state.clone(), request.arguments.unwrap_or_default()).await {
            Ok(value) => CallToolResult::structured(value),
            Err(error) => {
                error.log();
                CallToolResult::error(vec![ContentBlock::text(error.message())])
            }
        };
        Ok(result.into())
    }
}

/// What a language model is told about the server.
fn instructions(state: &AppState) -> String {
    let models: Vec<&str> = state.pool.models().iter().map(|model| model.name()).collect();
    let models = if models.is_empty() { String::new() } else { format!(" Models: {}.", models.join(", ")) };
    format!(
        "Search of a collection, embeddings, captions, answers, classes and transcripts of images, audio and video.\
         {models} Media are given as data URIs, base64, or http(s) URLs of the domains that the server allows."
    )
}
