//! The chat template of a checkpoint: where it is stored, and how a conversation is rendered by it.

#[cfg(feature = "chat")]
mod render;
#[cfg(not(feature = "chat"))]
#[path = "render_disabled.rs"]
mod render;

pub(super) use render::render;

use crate::{Error, Result};
use mm_repr::read_json;
use serde_json::Value as Json;
use std::path::Path;

/// The chat template of a checkpoint folder, in any of the files that may hold it.
pub(super) fn find(folder: &Path, tokenizer_config: &Json) -> Result<Option<String>> {
    let file = folder.join("chat_template.jinja");
    if file.exists() {
        return std::fs::read_to_string(&file).map(Some).map_err(|e| Error::checkpoint(&file, e));
    }
    for name in ["chat_template.json", "processor_config.json"] {
        if let Some(text) = read_json(&folder.join(name))?["chat_template"].as_str() {
            return Ok(Some(text.to_owned()));
        }
    }
    Ok(match &tokenizer_config["chat_template"] {
        Json::String(text) => Some(text.clone()),
        Json::Array(list) => {
            let named = |name: &str| list.iter().find(|t| t["name"] == name);
            named("default").or(list.first()).and_then(|t| t["template"].as_str()).map(ToOwned::to_owned)
        }
        _ => None,
    })
}
