//! What a prompt leaves of a model's positions.

use crate::error::ApiError;
use mm_reason::{Pipeline, pretrained::Prompt};

/// What a prompt leaves of a model's positions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Tokens of the prompt.
    pub(crate) prompt: usize,
    /// Tokens that prompt and output may have together.
    pub(crate) positions: usize,
}

impl Room {
    /// That of a prompt.
    pub(crate) fn of(pipeline: &Pipeline, prompt: &Prompt) -> Result<Self, ApiError> {
        Ok(Self { prompt: prompt.decoder_input_ids.len(), positions: pipeline.max_positions()? })
    }

    /// New tokens that fit.
    pub(crate) fn left(self) -> usize {
        self.positions.saturating_sub(self.prompt)
    }

    /// Refuses more new tokens than fit.
    pub(crate) fn check(self, new: usize) -> Result<(), ApiError> {
        if new <= self.left() {
            return Ok(());
        }
        let found = format!("{} prompt tokens and {new} new tokens", self.prompt);
        let expected = format!("at most the model's {} positions", self.positions);
        Err(ApiError::invalid("messages", found, expected).with_code("context_length_exceeded"))
    }
}
