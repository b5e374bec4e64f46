//! Chat templates of checkpoints (Jinja).

use crate::bytes::{fixtures, folder, write};
use mm_reason::pretrained::Tokenizer;
use serde_json::json;
use std::sync::OnceLock;

/// A tokenizer for the folder of the template.
fn tokenizer() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let path = fixtures("mm-reason/tests/fixtures/vilt-vqa/tokenizer.json");
    BYTES.get_or_init(|| std::fs::read(path).expect("a fixture"))
}

/// Renders a conversation with a template.
pub fn read(input: &[u8]) {
    let folder = folder();
    write(folder.path(), "tokenizer.json", tokenizer());
    write(folder.path(), "tokenizer_config.json", br#"{"bos_token": "<s>", "eos_token": {"content": "</s>"}}"#);
    write(folder.path(), "chat_template.jinja", input);
    let Ok(tokenizer) = Tokenizer::open(folder.path()) else { return };
    let messages = json!([
        {"role": "system", "content": "Answer briefly."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is this? "}]},
        {"role": "assistant", "content": [{"type": "text", "text": " A dog\n"}]},
        {"role": "user", "content": "And its colour?"},
    ]);
    let _ = tokenizer.apply_chat_template(&messages);
}
