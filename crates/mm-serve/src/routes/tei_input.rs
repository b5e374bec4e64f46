//! Bodies of text-embeddings-inference's routes, and the options of their texts.

use super::body::{Body, BodyWith};
use crate::{
    engine::ModelInfo,
    error::{ApiError, TeiError, shortened},
    state::{AppState, Shared},
};
use axum::extract::{FromRequest, Request};
use mm_core::{Modality, ProcessContext, Processor, Source};
use mm_data::process_catching_panics;
use mm_repr::NamedPrompt;
use serde::{Deserialize, de::DeserializeOwned};
use std::sync::Arc;
use utoipa::ToSchema;

/// How often a text has to be cut to count as too long: a processor counts the texts of all requests.
const TRIES: usize = 8;

/// A body of JSON, whose errors have text-embeddings-inference's form.
pub(crate) struct TeiBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for TeiBody<T> {
    type Rejection = TeiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, TeiError> {
        let Body(value) = Body::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// A body of JSON with options of its texts.
pub(crate) struct TextBody<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for TextBody<T> {
    type Rejection = TeiError;

    async fn from_request(request: Request, state: &Shared) -> Result<Self, TeiError> {
        let BodyWith(value, _) = BodyWith::<TextOptions, T>::from_request(request, state).await?;
        Ok(Self(value))
    }
}

/// How texts become tokens.
#[derive(Deserialize, ToSchema)]
pub(super) struct TextOptions {
    /// Whether longer texts than the model's are cut (they are when absent), or refused.
    #[serde(default)]
    truncate: Option<bool>,
    /// `Right`: what is cut is the end.
    #[serde(default)]
    truncation_direction: Option<String>,
    /// The prompt of the model that is put in front of each text; its default one when absent. Not for `/rerank`.
    #[serde(default)]
    prompt_name: Option<String>,
}

impl TextOptions {
    /// The prompt that is asked for; `None` is the model's default one.
    pub(super) fn prompt<'a>(&self, info: &'a ModelInfo) -> Result<Option<&'a NamedPrompt>, ApiError> {
        self.prompt_name.as_deref().map(|name| info.prompt(name)).transpose()
    }

    /// Refuses the name of a prompt, where a request holds texts of two kinds.
    pub(super) fn refuse_prompt(&self) -> Result<(), ApiError> {
        match &self.prompt_name {
            Some(name) => Err(ApiError::invalid("prompt_name", format!("{:?}", shortened(name)), "none on this route")),
            None => Ok(()),
        }
    }

    /// Whether longer texts than the model's are cut.
    pub(super) fn truncates(&self) -> bool {
        self.truncate != Some(false)
    }

    /// Refuses to cut the start of a text.
    pub(super) fn check_direction(&self) -> Result<(), ApiError> {
        match self.truncation_direction.as_deref() {
            Some(other) if !other.eq_ignore_ascii_case("right") => {
                Err(ApiError::invalid("truncation_direction", shortened(other), "Right"))
            }
            _ => Ok(()),
        }
    }

    /// Refuses options that models of mm do not have, and with `"truncate": false` texts that the model would cut.
    pub(super) async fn check(
        &self,
        state: &AppState,
        info: &ModelInfo,
        texts: &[String],
        param: &str,
    ) -> Result<(), ApiError> {
        self.check_direction()?;
        let prompt = self.prompt(info)?;
        if self.truncates() {
            return Ok(());
        }
        let processor = prompt.map_or(info.processor(&Modality::TEXT)?, |prompt| &prompt.processor).clone();
        let (texts, param) = (texts.to_vec(), param.to_owned());
        state.decode(move || texts.into_iter().try_for_each(|text| refuse_long(&processor, text, &param))).await
    }
}

fn refuse_long(processor: &Arc<dyn Processor>, text: String, param: &str) -> Result<(), ApiError> {
    let source = Source::Text(text);
    let count = || processor.truncated().map_or(0, |(count, _)| count);
    for _ in 0..TRIES {
        let before = count();
        process_catching_panics(processor.as_ref(), &source, &mut ProcessContext::eval())?;
        if count() == before {
            return Ok(());
        }
    }
    let limit = processor.truncated().map_or_else(|| "the model's length".to_owned(), |(_, limit)| limit);
    let expected = format!("at most {limit}, or \"truncate\": true");
    Err(ApiError::too_large(param, "a longer text than the model takes", expected))
}
