//! The traits that a family of pretrained models implements.

use super::{
    tokenizer::Tokenizer,
    types::{Attribution, EncodedMedia, Prompt, Request, TimestampTokens, TrainBatch},
};
use crate::{
    Result,
    generate::{GenerationConfig, Prefill},
};
use mm_core::{
    Modality, Processor, Tensor,
    nn::decoder::{Decoder, DecoderState},
};
use mm_repr::family::Family;
use std::sync::Arc;

/// A family of checkpoints.
pub(super) struct PretrainedFamily {
    /// The `model_type`, weight names and builder.
    pub(super) family: Family<Box<dyn MediaEncoder>>,
    /// Prefix of the weights of its answer classifier, which are reinitialized for other labels.
    pub(super) classifier_prefix: Option<&'static str>,
}

/// A model that encodes images, video or audio and turns requests into prompts. What it can do with them, it returns as
/// one of the other traits.
pub(super) trait MediaEncoder {
    /// The processor of a modality; none where the model does not take it.
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>>;

    /// The processor for training, where batches need a fixed shape.
    fn train_processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        self.processor(modality)
    }

    /// Encodes processed values `[rows, …]`.
    fn encode(&self, modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia>;

    /// Whether [`Self::encode`] takes several rows.
    fn supports_batches(&self) -> bool {
        true
    }

    /// Whether a prompt may be about several images and videos.
    fn supports_several_media(&self) -> bool {
        false
    }

    /// A request as token ids.
    ///
    /// # Errors
    /// If the model was not trained for such requests.
    fn prompt(&self, tokenizer: &Tokenizer, media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt>;

    /// The model as a generator of text, where it has a decoder.
    fn as_generator(&self) -> Option<&dyn ConditionalGenerator> {
        None
    }

    /// The model as a classifier of answers, where it has a classification head.
    fn as_classifier(&self) -> Option<&dyn AnswerClassifier> {
        None
    }

    /// Probability that a text describes an image; none without an image-text matching head.
    fn itm_score(&self, _media: &EncodedMedia, _prompt: &Prompt) -> mm_core::Result<Option<f64>> {
        Ok(None)
    }

    /// How much each patch and each token of the prompt contributed to the answer; none where the family does not
    /// support it.
    fn explain(
        &self,
        _tokenizer: &Tokenizer,
        _media: &EncodedMedia,
        _prompt: &Prompt,
        _answer: &[i64],
    ) -> Result<Option<Attribution>> {
        Ok(None)
    }
}

/// A model that generates text given media and a prompt.
pub(super) trait ConditionalGenerator {
    /// The decoder that generates.
    fn decoder(&self) -> &Decoder;

    /// Feeds the prompt to the decoder for each row of `media`; at most `max_new_tokens` can follow.
    fn prefill(
        &self,
        media: Option<&EncodedMedia>,
        prompt: &Prompt,
        max_new_tokens: i64,
    ) -> mm_core::Result<Prefill<DecoderState>>;

    /// Logits `[rows, tokens, vocab]` of the next token after each of the batch's `decoder_input_ids`.
    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor>;

    /// Timestamp tokens, where the model has them.
    fn timestamp_tokens(&self) -> Option<TimestampTokens> {
        None
    }

    /// The English name of the language of a transcription's prompt, where the model says it.
    fn spoken_language(&self, _tokenizer: &Tokenizer, _prompt: &Prompt) -> Option<&'static str> {
        None
    }

    /// Changes the options of a checkpoint where the family's meaning differs.
    fn adjust_config(&self, _config: &mut GenerationConfig) {}
}

/// A model that scores a fixed set of answers.
pub(super) trait AnswerClassifier {
    /// Logits `[rows, labels]` for one question about each row.
    fn answer_logits(&self, media: &EncodedMedia, prompt: &Prompt) -> mm_core::Result<Tensor>;

    /// Logits `[rows, labels]` for the batch's questions.
    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor>;
}
