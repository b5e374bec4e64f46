//! Stands for the rendering of chat templates where the feature `chat` is off.

use serde_json::Value as Json;

/// # Errors
/// Always.
pub(crate) fn render(_: &str, _: &Json, _: &str, _: &str) -> Result<String, String> {
    Err("found one, expected a program that is built with the feature `chat` of mm-reason".into())
}
