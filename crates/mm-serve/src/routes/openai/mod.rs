//! OpenAI's routes.

pub(super) mod chat;
pub(super) mod embeddings;
mod generation;
pub(super) mod models;
mod subtitles;
pub(super) mod transcriptions;
