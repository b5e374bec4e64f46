//! The messages of a conversation, as chat templates take them, and the images and videos that they are about.

use crate::{
    engine::{Medium, ModelHandle, ModelInfo, RawMedium},
    error::{ApiError, shortened},
    media::{ValueReader, prepare},
    state::AppState,
};
use mm_core::Modality;
use serde_json::{Value, json};
use std::sync::Arc;

/// A conversation.
pub(crate) struct Conversation {
    /// Messages with `role` and `content`.
    pub(crate) messages: Value,
    /// The images and videos, in the order of the messages.
    pub(crate) media: Vec<Medium>,
}

/// Images and videos of a conversation: each is decoded, and takes a part of the model's positions.
const MAX_MEDIA: usize = 32;

/// Parts of a message by their `type`: its modality, and the type that chat templates know.
const MEDIA: [(&str, Modality, &str); 2] =
    [("image_url", Modality::IMAGE, "image"), ("video_url", Modality::VIDEO, "video")];

impl Conversation {
    /// Reads messages in OpenAI's form, for a model.
    pub(crate) async fn read(
        state: &AppState,
        found: (&ModelHandle, &Arc<ModelInfo>),
        messages: &[Value],
    ) -> Result<Self, ApiError> {
        if messages.is_empty() {
            return Err(ApiError::invalid("messages", "none", "at least one message"));
        }
        let (mut reader, mut media) = (ValueReader::new(state), Vec::new());
        let mut out = Vec::with_capacity(messages.len());
        for (index, message) in messages.iter().enumerate() {
            let param = format!("messages[{index}]");
            let role = message["role"].as_str().unwrap_or_default();
            if !["system", "developer", "user", "assistant"].contains(&role) {
                let found = shortened(&message["role"].to_string());
                return Err(ApiError::invalid(&format!("{param}.role"), found, "system, user or assistant"));
            }
            let role = if role == "developer" { "system" } else { role };
            let param = format!("{param}.content");
            let content = match &message["content"] {
                Value::String(text) => json!([{"type": "text", "text": text}]),
                Value::Array(parts) => {
                    let mut content = Vec::with_capacity(parts.len());
                    for (number, part) in parts.iter().enumerate() {
                        content.push(read_part(&mut reader, part, &format!("{param}[{number}]"), &mut media).await?);
                    }
                    Value::from(content)
                }
                other => {
                    return Err(ApiError::invalid(&param, shortened(&other.to_string()), "a text or a list of parts"));
                }
            };
            out.push(json!({"role": role, "content": plain_where_text(role, content)}));
        }
        Ok(Self { messages: Value::from(out), media: prepare(state, found, media).await? })
    }
}

/// Templates take the content of a system message as text.
fn plain_where_text(role: &str, content: Value) -> Value {
    let parts = content.as_array().map(Vec::as_slice).unwrap_or_default();
    match parts {
        [part] if role == "system" && part["type"] == "text" => part["text"].clone(),
        _ => content,
    }
}

async fn read_part(
    reader: &mut ValueReader<'_>,
    part: &Value,
    param: &str,
    media: &mut Vec<RawMedium>,
) -> Result<Value, ApiError> {
    if let (Some("text"), Some(text)) = (part["type"].as_str(), part["text"].as_str()) {
        return Ok(json!({"type": "text", "text": text}));
    }
    for (kind, modality, template_kind) in MEDIA {
        if part["type"] != kind {
            continue;
        }
        let Some(url) = part[kind]["url"].as_str().or_else(|| part[kind].as_str()) else {
            return Err(ApiError::invalid(
                &format!("{param}.{kind}"),
                shortened(&part[kind].to_string()),
                "{\"url\": …}",
            ));
        };
        if media.len() == MAX_MEDIA {
            let found = format!("more than {MAX_MEDIA} images and videos");
            return Err(ApiError::invalid(param, found, format!("at most {MAX_MEDIA} in a conversation")));
        }
        let param = format!("{param}.{kind}");
        let source = reader.read(&modality, url, &param).await?;
        media.push(RawMedium { modality, source, param });
        return Ok(json!({"type": template_kind}));
    }
    Err(ApiError::invalid(
        &format!("{param}.type"),
        shortened(&part["type"].to_string()),
        "text, image_url or video_url",
    ))
}
