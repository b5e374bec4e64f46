//! Pretrained models that answer questions, caption images and transcribe speech, from checkpoint folders.
//!
//! [`Pipeline::load`] selects the family by the `model_type` of `config.json`. A family is one file that implements
//! `traits::MediaEncoder` and `traits::ConditionalGenerator` or `traits::AnswerClassifier`, plus one line in
//! [`families`].

mod answering;
mod attribution;
mod bert_decoder;
mod blip;
mod chat_template;
mod decoder;
mod families;
mod git;
mod image_tokens;
mod llama_decoder;
mod llava;
mod patches;
mod pipeline;
mod qwen2_vl;
mod text_generation;
mod text_stream;
mod timestamps;
mod tokenizer;
mod traits;
mod transcript_warnings;
mod transcription;
mod types;
mod vilt;
mod vision_encoder_decoder;
mod whisper;
mod whisper_languages;

pub use answering::ScoredAnswer;
pub use families::families;
pub use pipeline::{Pipeline, TrainablePipeline, TrainingOptions};
pub use text_generation::Generation;
pub use text_stream::TextStream;
pub use tokenizer::Tokenizer;
pub use transcript_warnings::{TranscriptWarning, TranscriptWarningKind};
pub use transcription::{Segment, Transcript};
pub use types::{Attribution, EncodedMedia, Prompt, Request, TrainBatch};
