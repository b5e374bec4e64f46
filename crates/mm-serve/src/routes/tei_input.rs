//! Bodies of text-embeddings-inference's routes, and the options of their texts.

use super::body::{Body, BodyWith};
use crate::{
    embed::Preparation,
    encode::LongTexts,
    engine::ModelInfo,
    error::{ApiError, TeiError, shortened},
    state::Shared,
};
use axum::extract::{FromRequest, Request};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::ToSchema;

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
    /// The prompt of the model that is put in front of each text; its default one when absent. Not for `/rerank` and `/predict`.
    #[serde(default)]
    prompt_name: Option<String>,
}

impl TextOptions {
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

    /// What becomes of longer texts than the model's.
    pub(super) fn long_texts(&self) -> LongTexts {
        if self.truncates() { LongTexts::Cut } else { LongTexts::Refuse }
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

    /// How the texts of a field become tokens.
    pub(super) fn preparation<'a>(&self, info: &'a ModelInfo, field: &'a str) -> Result<Preparation<'a>, ApiError> {
        self.check_direction()?;
        let prompt = self.prompt_name.as_deref().map(|name| info.prompt(name)).transpose()?;
        Ok(Preparation { field, prompt, long_texts: self.long_texts() })
    }
}
