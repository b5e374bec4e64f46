//! The inputs of `/v1/embeddings`: texts as OpenAI takes them; images, audio and video in the shapes that other servers
//! introduced.

use crate::{
    embed::check_count,
    error::{ApiError, shortened},
    media::ValueReader,
    state::AppState,
};
use mm_core::{Modality, Source};
use serde_json::Value;

/// One input before its files are read.
struct RawInput<'a> {
    modality: Modality,
    value: &'a str,
    param: String,
}

/// The values of a request, in `messages` or `input`; plain strings are of the modality that is named, or else texts.
pub(super) async fn read_inputs(
    state: &AppState,
    given: (Option<&[Value]>, &Value),
    default: Option<&str>,
) -> Result<Vec<(Modality, Source)>, ApiError> {
    let default = modality(default.unwrap_or("text"), "modality")?;
    let raw = match given {
        (Some(messages), Value::Null) => vec![message_input(messages)?],
        (Some(_), _) => return Err(ApiError::invalid("messages", "`input` as well", "one of both")),
        (None, Value::Null) => return Err(ApiError::invalid("input", "none", EXPECTED)),
        (None, Value::Array(items)) => {
            check_count(state, items.len())?;
            if items.iter().all(Value::is_number) {
                return Err(token_ids("input"));
            }
            let item = |(index, item)| raw_input(item, &default, format!("input[{index}]"));
            items.iter().enumerate().map(item).collect::<Result<_, _>>()?
        }
        (None, item) => vec![raw_input(item, &default, "input".into())?],
    };
    check_count(state, raw.len())?;
    let (mut reader, mut inputs) = (ValueReader::new(state), Vec::with_capacity(raw.len()));
    for RawInput { modality, value, param } in raw {
        let source = reader.read(&modality, value, &param).await?;
        inputs.push((modality, source));
    }
    Ok(inputs)
}

const EXPECTED: &str = "a text, a list of texts, or objects such as {\"text\": …} and {\"image\": …}";

fn token_ids(param: &str) -> ApiError {
    let expected = "texts (with langchain: check_embedding_ctx_length=False)";
    ApiError::invalid(param, "token ids, which are those of another tokenizer", expected)
}

fn raw_input<'a>(item: &'a Value, default: &Modality, param: String) -> Result<RawInput<'a>, ApiError> {
    match item {
        Value::String(value) => Ok(RawInput { modality: default.clone(), value, param }),
        Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_number) => Err(token_ids(&param)),
        Value::Object(fields) => {
            let mut values = fields.iter().filter(|(_, value)| !value.is_null());
            match (values.next(), values.next()) {
                (Some((name, Value::String(value))), None) if name != "type" => {
                    let modality = modality(name, &param)?;
                    Ok(RawInput { modality, value, param: format!("{param}.{name}") })
                }
                _ => Err(ApiError::invalid(&param, item_text(item), EXPECTED)),
            }
        }
        other => Err(ApiError::invalid(&param, item_text(other), EXPECTED)),
    }
}

/// A modality by the name that a request gives.
fn modality(name: &str, param: &str) -> Result<Modality, ApiError> {
    let known = [Modality::TEXT, Modality::IMAGE, Modality::AUDIO, Modality::VIDEO];
    let unknown = || ApiError::invalid(param, format!("{:?}", shortened(name)), "text, image, audio or video");
    known.into_iter().find(|modality| modality.name() == name).ok_or_else(unknown)
}

/// The beginning of a value, for messages.
fn item_text(item: &Value) -> String {
    shortened(&item.to_string())
}

const ONE_PART: &str = "one content part, of the role user; several values are a list in `input`";

/// The only part of the messages: a conversation has one vector, and models that embed take one value for it.
fn message_input(messages: &[Value]) -> Result<RawInput<'_>, ApiError> {
    let mut inputs = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        if message["role"] != "user" {
            let found = format!("the role {}", item_text(&message["role"]));
            return Err(ApiError::invalid("messages", found, ONE_PART));
        }
        let param = format!("messages[{index}].content");
        match &message["content"] {
            Value::String(value) => inputs.push(RawInput { modality: Modality::TEXT, value, param }),
            Value::Array(parts) => {
                for (number, part) in parts.iter().enumerate() {
                    inputs.push(part_input(part, format!("{param}[{number}]"))?);
                }
            }
            other => return Err(ApiError::invalid(&param, item_text(other), "a text or a list of parts")),
        }
    }
    <[RawInput<'_>; 1]>::try_from(inputs).map(|[input]| input).map_err(|inputs| {
        let found = format!("{} content parts", inputs.len());
        ApiError::invalid("messages", found, ONE_PART)
    })
}

fn part_input(part: &Value, param: String) -> Result<RawInput<'_>, ApiError> {
    let kinds = [
        ("text", Modality::TEXT),
        ("image_url", Modality::IMAGE),
        ("audio_url", Modality::AUDIO),
        ("video_url", Modality::VIDEO),
    ];
    for (kind, modality) in kinds {
        if part["type"] == kind {
            let value = part[kind]["url"].as_str().or_else(|| part[kind].as_str());
            let value =
                value.ok_or_else(|| ApiError::invalid(&param, item_text(part), format!("a part with `{kind}`")))?;
            return Ok(RawInput { modality, value, param });
        }
    }
    Err(ApiError::invalid(&param, item_text(part), "a part of type text, image_url, audio_url or video_url"))
}
