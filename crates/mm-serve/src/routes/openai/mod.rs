//! OpenAI's routes.

pub(super) mod chat;
mod chat_stream;
mod embedding_inputs;
pub(super) mod embeddings;
mod generation;
pub(super) mod models;
mod subtitles;
pub(super) mod transcriptions;
mod unsupported;
