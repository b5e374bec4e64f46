//! `/v1/chat/completions`.

use super::{
    chat_stream::{Chunks, stream},
    generation::GenerationOptions,
    unsupported::{self, refuse},
};
use crate::{
    conversation::Conversation,
    engine::{Capability, Prompt, Room},
    error::ApiError,
    routes::{body::BodyWith, middleware::Permit},
    state::Shared,
};
use axum::{
    Extension, Json,
    extract::State,
    response::{IntoResponse, Response},
};
use mm_reason::{Generation, generate::GenerationConfig};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use utoipa::ToSchema;

/// A conversation to be continued.
#[derive(Deserialize, ToSchema)]
pub(crate) struct ChatRequest {
    /// The model; the first that chats when absent.
    #[serde(default)]
    model: Option<String>,
    /// Messages with `role` and `content`: a text, or parts of type `text`, `image_url` and `video_url`.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<Value>,
    /// Whether the answer comes in parts, as server-sent events.
    #[serde(default)]
    stream: bool,
    /// `{"include_usage": true}`: a stream ends with the numbers of tokens.
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(flatten)]
    options: GenerationOptions,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// Options of a stream.
#[derive(Deserialize, ToSchema)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Continues a conversation.
///
/// Refused by their names, since they would change the answer: `tools`, `functions`, `function_call`, `logprobs`,
/// `top_logprobs`, `presence_penalty`, `frequency_penalty`, `logit_bias`, `min_p`, `min_tokens`, `stop_token_ids`,
/// `ignore_eos`, and vLLM's `guided_…` and `structured_outputs`. Other fields that are not listed are ignored.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai", request_body(
    content = ChatRequest, example = json!({"messages": [{"role": "user", "content": "What is a dog?"}], "max_tokens": 50})
), responses(
    (status = 200, description = "OpenAI's chat completion; with `stream` its chunks as server-sent events",
        content((Object = "application/json"), (Object = "text/event-stream"))),
    (status = 400, description = "A message or option that the model does not take"),
    (status = 404, description = "No such model"),
    (status = 413, description = "More than the server takes"),
    (status = 429, description = "Too many requests")
))]
pub(crate) async fn chat(
    State(state): State<Shared>,
    Extension(permit): Extension<Permit>,
    BodyWith(request, _): BodyWith<GenerationOptions, ChatRequest>,
) -> Result<Response, ApiError> {
    let (model, info) = state.pool.find(request.model.as_deref(), Capability::Chat)?;
    refuse(&request.others, &unsupported::CHAT)?;
    // Before images and videos are decoded.
    let choices = request.options.choices()?;
    if request.stream && choices > 1 {
        return Err(ApiError::invalid("n", choices, "1 with `stream`"));
    }
    let conversation = Conversation::read(&state, (model, &info), &request.messages).await?;
    let completion = Completion {
        id: completion_id(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        model: info.name.clone(),
    };
    let (options, limits) = (request.options, state.limits.clone());
    if request.stream {
        let config = move |base: &GenerationConfig, room| options.over(base, &limits, Some(room), true);
        let include_usage = request.stream_options.and_then(|options| options.include_usage).unwrap_or_default();
        return stream(model, Chunks { completion, include_usage }, conversation, config, permit).await;
    }
    let conversation = Arc::new(conversation);
    let ask = |number: usize| {
        let (options, limits) = (options.clone(), limits.clone());
        let overrides = move |base: &GenerationConfig, room: Option<Room>| {
            let config = options.over(base, &limits, room, false)?;
            // What is not sampled has no seed, and is generated together with other requests'.
            let seed = if config.do_sample { config.seed.wrapping_add(number as u64) } else { 0 };
            Ok(GenerationConfig { seed, ..config })
        };
        model.generate(Prompt::Chat(conversation.clone()), Box::new(overrides))
    };
    let asked = (0..choices).map(ask).collect::<Result<Vec<_>, _>>()?;
    // The model drops its images and videos once it has encoded them.
    drop(conversation);
    let mut answers = Vec::with_capacity(choices);
    for answer in asked {
        answers.push(answer.await?);
    }
    Ok(Json(completion.whole(&answers)).into_response())
}

/// A completion's own fields.
pub(super) struct Completion {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: String,
}

fn completion_id() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    format!("chatcmpl-{nanoseconds:x}{:04x}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn finish_reason(answer: &Generation) -> &'static str {
    if answer.finished { "stop" } else { "length" }
}

impl Completion {
    fn whole(&self, answers: &[Generation]) -> Value {
        let choice = |(index, answer): (usize, &Generation)| {
            json!({
                "index": index, "finish_reason": finish_reason(answer), "logprobs": null,
                "message": {"role": "assistant", "content": answer.text, "refusal": null},
            })
        };
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": answers.iter().enumerate().map(choice).collect::<Vec<_>>(),
            "usage": usage(answers),
        })
    }
}

/// Numbers of tokens.
pub(super) fn usage(answers: &[Generation]) -> Value {
    let generated: usize = answers.iter().map(|answer| answer.num_tokens).sum();
    let prompt = answers.first().map_or(0, |answer| answer.num_prompt_tokens);
    json!({"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated})
}
