//! `/v1/chat/completions`.

use super::generation::GenerationOptions;
use crate::{
    conversation::Conversation,
    engine::{Capability, Encoded, LoadedModel, ModelHandle, Prompt, Room, with_new_seed},
    error::ApiError,
    routes::{body::BodyWith, middleware::Permit},
    state::Shared,
};
use axum::{
    Extension, Json,
    extract::State,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use mm_reason::{
    Generation, Pipeline,
    generate::{GenerationConfig, LogitsProcessors},
    pretrained::TextStream,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use utoipa::ToSchema;

/// Parts of a stream that wait for a client that reads slowly; then generation waits.
const STREAM_BUFFER: usize = 64;

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
    /// Not supported: refused where it holds anything.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Value>,
    /// Not supported: refused where it is true.
    #[serde(default)]
    logprobs: Option<bool>,
}

/// Options of a stream.
#[derive(Deserialize, ToSchema)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

/// Continues a conversation.
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
    if request.tools.as_ref().is_some_and(|tools| tools.as_array().is_none_or(|list| !list.is_empty())) {
        return Err(ApiError::invalid("tools", "some", "none: models of mm call no tools"));
    }
    if request.logprobs == Some(true) {
        return Err(ApiError::invalid("logprobs", true, "false"));
    }
    request.options.check_supported()?;
    let conversation = Conversation::read(&state, &request.messages).await?;
    let completion = Completion {
        id: completion_id(),
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()),
        model: info.name.clone(),
    };
    let choices = request.options.choices()?;
    let (options, limits) = (request.options, state.limits.clone());
    if request.stream {
        if choices > 1 {
            return Err(ApiError::invalid("n", choices, "1 with `stream`"));
        }
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
    let mut answers = Vec::with_capacity(choices);
    for answer in asked {
        answers.push(answer.await?);
    }
    Ok(Json(completion.whole(&answers)).into_response())
}

/// A completion's own fields.
struct Completion {
    id: String,
    created: u64,
    model: String,
}

fn completion_id() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_nanos() as u64);
    format!("chatcmpl-{nanoseconds:x}{:04x}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

fn finish_reason(answer: &Generation) -> &'static str {
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
fn usage(answers: &[Generation]) -> Value {
    let generated: usize = answers.iter().map(|answer| answer.num_tokens).sum();
    let prompt = answers.first().map_or(0, |answer| answer.num_prompt_tokens);
    json!({"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated})
}

/// The events of a streamed completion.
struct Chunks {
    completion: Completion,
    /// Whether the last one has the numbers of tokens.
    include_usage: bool,
}

impl Chunks {
    fn event(&self, choices: &Value, usage: &Value) -> String {
        let Completion { id, created, model } = &self.completion;
        let mut event = json!({
            "id": id, "object": "chat.completion.chunk", "created": created, "model": model, "choices": choices,
        });
        if self.include_usage {
            event["usage"] = usage.clone();
        }
        event.to_string()
    }

    fn delta(&self, delta: &Value, finish_reason: Option<&str>) -> String {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish_reason, "logprobs": null});
        self.event(&json!([choice]), &Value::Null)
    }

    /// The events after the text.
    fn end(&self, answer: &Generation) -> Vec<String> {
        let usage = self.include_usage.then(|| self.event(&json!([]), &usage(std::slice::from_ref(answer))));
        [self.delta(&json!({}), Some(finish_reason(answer)))].into_iter().chain(usage).collect()
    }
}

/// The pipeline of a model that chats.
fn pipeline(model: &LoadedModel) -> Result<&Pipeline, ApiError> {
    match model {
        LoadedModel::Generator(pipeline) => Ok(pipeline),
        _ => Err(ApiError::internal("a model that does not generate was asked to chat")),
    }
}

/// A conversation whose options and length were checked.
struct Checked<'a> {
    pipeline: &'a Pipeline,
    encoded: Encoded,
    config: GenerationConfig,
}

impl<'a> Checked<'a> {
    fn new(
        model: Result<&'a mut LoadedModel, ApiError>,
        conversation: &Conversation,
        config: impl FnOnce(&GenerationConfig, Room) -> Result<GenerationConfig, ApiError>,
    ) -> Result<Self, ApiError> {
        let pipeline = pipeline(model?)?;
        let encoded = Encoded::chat(pipeline, conversation)?;
        let room = Room::of(pipeline, &encoded.prompt)?;
        let config = config(&with_new_seed(pipeline.generation.clone()), room)?;
        Ok(Self { pipeline, encoded, config })
    }

    /// One answer; `on_text` receives its parts as they come. It ends early once `interrupt` is set. Parts before a
    /// stop text that may still turn out to be its beginning are held back.
    fn generate(&self, interrupt: &AtomicBool, on_text: impl Fn(&str)) -> Result<Generation, ApiError> {
        let mut stream = TextStream::new(&self.pipeline.tokenizer);
        let mut held = StopBuffer::new(&self.config.stop_strings);
        let mut on_token = |_: usize, id: i64| {
            if let Some(text) = stream.push(id).as_deref().and_then(|new| held.push(new)) {
                on_text(text);
            }
        };
        let is_set = || interrupt.load(Ordering::Relaxed);
        let processors = LogitsProcessors { interrupt: Some(&is_set), ..LogitsProcessors::default() };
        let Encoded { media, prompt } = &self.encoded;
        let (media, config) = (media.as_ref(), &self.config);
        let answers = self.pipeline.generate_text_from_prompt(media, prompt, config, &processors, &mut on_token)?;
        let answer = answers.into_iter().flatten().next();
        let answer = answer.ok_or_else(|| ApiError::internal("the model generated nothing"))?;
        let rest = held.rest(&answer.text);
        if !rest.is_empty() {
            on_text(rest);
        }
        Ok(answer)
    }
}

/// An answer in parts. It ends where the client goes away. What is wrong with the request is refused before the first
/// part.
async fn stream(
    model: &ModelHandle,
    chunks: Chunks,
    conversation: Conversation,
    config: impl FnOnce(&GenerationConfig, Room) -> Result<GenerationConfig, ApiError> + Send + 'static,
    permit: Permit,
) -> Result<Response, ApiError> {
    let (sender, receiver) = mpsc::channel::<String>(STREAM_BUFFER);
    let (begin, begun) = oneshot::channel();
    model.spawn(move |model| {
        if sender.is_closed() {
            return;
        }
        let checked = match Checked::new(model, &conversation, config) {
            Ok(checked) => checked,
            Err(error) => return drop(begin.send(Err(error))),
        };
        // A client that has gone is noticed by the parts that are sent to it.
        let _ = begin.send(Ok(()));
        let gone = AtomicBool::new(false);
        let send = |data: String| {
            if sender.blocking_send(data).is_err() {
                gone.store(true, Ordering::Relaxed);
            }
        };
        send(chunks.delta(&json!({"role": "assistant", "content": ""}), None));
        match checked.generate(&gone, |text| send(chunks.delta(&json!({"content": text}), None))) {
            Ok(answer) => chunks.end(&answer).into_iter().for_each(&send),
            Err(error) => send(error.body().to_string()),
        }
        send("[DONE]".to_owned());
    })?;
    begun.await.map_err(|_| ApiError::internal("the model's thread did not begin a stream"))??;
    let events = ReceiverStream::new(receiver).map(move |data| {
        let _ = &permit;
        Ok::<_, Infallible>(Event::default().data(data))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// Holds back text that is, or may be the beginning of, a stop text, which the answer does not contain.
struct StopBuffer {
    stops: Vec<String>,
    text: String,
    sent: usize,
}

impl StopBuffer {
    fn new(stops: &[String]) -> Self {
        Self { stops: stops.to_vec(), text: String::new(), sent: 0 }
    }

    /// What can be sent now.
    fn push(&mut self, new: &str) -> Option<&str> {
        self.text += new;
        // A stop text may have begun with all but its last byte.
        let longest = self.stops.iter().map(String::len).max().unwrap_or(0);
        let found = self.stops.iter().filter_map(|stop| self.text.find(stop)).min();
        let mut end = found.unwrap_or_else(|| self.text.len().saturating_sub(longest.saturating_sub(1)));
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        if end <= self.sent {
            return None;
        }
        let start = std::mem::replace(&mut self.sent, end);
        Some(&self.text[start..end])
    }

    /// What of the whole answer was not sent.
    fn rest<'a>(&self, answer: &'a str) -> &'a str {
        answer.get(self.sent..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(stops: &[&str], parts: &[&str], answer: &str) -> String {
        let mut held = StopBuffer::new(&stops.iter().map(|stop| (*stop).to_owned()).collect::<Vec<_>>());
        let mut sent = String::new();
        for part in parts {
            sent += held.push(part).unwrap_or_default();
        }
        sent + held.rest(answer)
    }

    #[test]
    fn the_parts_of_a_stream_are_the_answer_without_its_stop_text() {
        assert_eq!(sent(&["END"], &["one ", "tw", "o E", "ND"], "one two "), "one two ");
        assert_eq!(sent(&["END"], &["one E", "N", "E"], "one ENE"), "one ENE");
        assert_eq!(sent(&[], &["é", "è"], "éè"), "éè");
        assert_eq!(sent(&["ab", "é!"], &["xé", "é!"], "xé"), "xé");
    }
}
