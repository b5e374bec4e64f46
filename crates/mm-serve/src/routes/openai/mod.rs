//! OpenAI's routes.

pub(super) mod chat;
mod conversation;
pub(super) mod embeddings;
mod generation;
pub(super) mod models;
mod subtitles;
pub(super) mod transcriptions;
