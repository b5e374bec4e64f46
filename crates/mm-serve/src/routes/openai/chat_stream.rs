//! The parts of a streamed completion.

use super::chat::{Completion, finish_reason, usage};
use crate::{
    conversation::Conversation,
    engine::{Encoded, LoadedModel, ModelHandle, Room, with_new_seed},
    error::ApiError,
    routes::middleware::Permit,
};
use axum::response::{
    IntoResponse, Response, Sse,
    sse::{Event, KeepAlive},
};
use mm_reason::{
    Generation, Pipeline,
    generate::{GenerationConfig, LogitsProcessors},
    pretrained::TextStream,
};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{StreamExt, wrappers::UnboundedReceiverStream};

/// The events of a streamed completion.
pub(super) struct Chunks {
    pub(super) completion: Completion,
    /// Whether the last one has the numbers of tokens.
    pub(super) include_usage: bool,
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
        LoadedModel::Pipeline(pipeline) => Ok(pipeline),
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

    /// One answer; `on_text` receives its parts as they come. It ends early once `is_cancelled`. Parts before a
    /// stop text that may still turn out to be its beginning are held back.
    fn generate(&self, is_cancelled: &dyn Fn() -> bool, on_text: impl Fn(&str)) -> Result<Generation, ApiError> {
        let mut stream = TextStream::new(&self.pipeline.tokenizer);
        let mut held = StopBuffer::new(&self.config.stop_strings);
        let mut on_token = |_: usize, id: i64| {
            if let Some(text) = stream.push(id).as_deref().and_then(|new| held.push(new)) {
                on_text(text);
            }
        };
        let processors = LogitsProcessors { interrupt: Some(is_cancelled), ..LogitsProcessors::default() };
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
/// part. Parts wait for a client that reads slowly, and the model does not: there are at most `max_new_tokens` of them,
/// and a client that reads nothing for `write_seconds` counts as disconnected.
pub(super) async fn stream(
    model: &ModelHandle,
    chunks: Chunks,
    conversation: Conversation,
    config: impl FnOnce(&GenerationConfig, Room) -> Result<GenerationConfig, ApiError> + Send + 'static,
    permit: Permit,
) -> Result<Response, ApiError> {
    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    let (begin, begun) = oneshot::channel();
    let of_client = sender.clone();
    let compute = move |model: Result<&mut LoadedModel, ApiError>| {
        let checked = match Checked::new(model, &conversation, config) {
            Ok(checked) => checked,
            Err(error) => return drop(begin.send(Err(error))),
        };
        // Its images and videos are encoded.
        drop(conversation);
        let _ = begin.send(Ok(()));
        // A client that disconnected takes no parts.
        let send = |data: String| drop(sender.send(data));
        send(chunks.delta(&json!({"role": "assistant", "content": ""}), None));
        match checked.generate(&|| sender.is_closed(), |text| send(chunks.delta(&json!({"content": text}), None))) {
            Ok(answer) => chunks.end(&answer).into_iter().for_each(&send),
            Err(error) => {
                error.log();
                send(error.body().to_string());
            }
        }
        send("[DONE]".to_owned());
    };
    model.spawn(move || of_client.is_closed(), compute)?;
    begun.await.map_err(|_| ApiError::internal("the model's thread did not begin a stream"))??;
    let events = UnboundedReceiverStream::new(receiver).map(move |data| {
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
