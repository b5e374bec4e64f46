//! The text of tokens while they are generated.

use super::tokenizer::Tokenizer;

/// Decodes the tokens of one sequence as they come. A character of several tokens comes with its last one.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    token_ids: Vec<i64>,
    /// What was returned so far, as far as later tokens did not change it.
    text: String,
}

impl<'a> TextStream<'a> {
    /// A stream without tokens.
    pub fn new(tokenizer: &'a Tokenizer) -> Self {
        Self { tokenizer, token_ids: Vec::new(), text: String::new() }
    }

    /// The text that a token adds; none while a character is incomplete.
    pub fn push(&mut self, token_id: i64) -> Option<String> {
        self.token_ids.push(token_id);
        let text = self.tokenizer.decode(&self.token_ids).unwrap_or_default();
        if text.ends_with('\u{fffd}') {
            return None;
        }
        let new = text.strip_prefix(self.text.as_str()).filter(|new| !new.is_empty()).map(ToOwned::to_owned);
        self.text = text;
        new
    }
}
