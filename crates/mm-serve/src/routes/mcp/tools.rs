//! The tools, each an existing route with its request as arguments. A tool is added by one entry of [`all`].

use super::inputs::{embed, transcribe};
use crate::{
    engine::Capability,
    error::{ApiError, Kind},
    routes::{
        answer::answer,
        body::{Body, from_value},
        caption::caption,
        classify::classify,
        search::search,
    },
    state::{AppState, Shared},
};
use axum::{Json, extract::State};
use rmcp::model::{JsonObject, ToolAnnotations};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{future::Future, pin::Pin};
use utoipa::{PartialSchema, ToSchema};

/// The value of a call that is on its way.
type Call = Pin<Box<dyn Future<Output = Result<Value, ApiError>> + Send>>;

/// A tool of a server.
pub(super) struct Tool {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    /// The schema of its arguments.
    schema: JsonObject,
    needs: Needs,
    call: Box<dyn Fn(Shared, JsonObject) -> Call + Send + Sync>,
}

/// What a server must have.
enum Needs {
    Store,
    /// A model with any of these capabilities.
    Model(&'static [Capability]),
}

/// Every tool.
pub(super) fn all() -> Vec<Tool> {
    vec![
        Tool::new(
            ("search", "Search"),
            "Finds rows of the collection by a text, an image, an audio file, a video, another row (`like`) or words, \
             best first, with their fields. `filter` is a condition such as: year > 2000 and kind in (\"bird\", \"cat\").",
            Needs::Store,
            search,
        ),
        Tool::new(
            ("embed", "Embed"),
            "Computes the vector of a text, an image, an audio file or a video.",
            Needs::Model(&[Capability::Embed]),
            embed,
        ),
        Tool::new(
            ("caption", "Caption"),
            "Describes an image or a video in words.",
            Needs::Model(&[Capability::Caption]),
            caption,
        ),
        Tool::new(
            ("answer", "Answer a question"),
            "Answers a question about an image or a video.",
            Needs::Model(&[Capability::Answer]),
            answer,
        ),
        Tool::new(
            ("classify", "Classify"),
            "Names the most probable classes of texts, images, audio files or videos: those of the model, or, but \
             for texts, the candidate labels that are given.",
            Needs::Model(&[Capability::Classify, Capability::ZeroShot]),
            classify,
        ),
        Tool::new(
            ("transcribe", "Transcribe"),
            "Writes down the speech of an audio file, with the times of its segments.",
            Needs::Model(&[Capability::Transcribe]),
            transcribe,
        ),
    ]
}

impl Tool {
    /// A tool whose arguments are the request of a route.
    fn new<R, T, F>(
        (name, title): (&'static str, &'static str),
        description: &'static str,
        needs: Needs,
        handler: impl Fn(State<Shared>, Body<R>) -> F + Copy + Send + Sync + 'static,
    ) -> Self
    where
        R: DeserializeOwned + ToSchema + Send + 'static,
        T: Serialize,
        F: Future<Output = Result<Json<T>, ApiError>> + Send + 'static,
    {
        let call = move |state, arguments| -> Call {
            let request = from_value(Value::Object(arguments));
            Box::pin(async move {
                let Json(answer) = handler(State(state), Body(request?)).await?;
                serde_json::to_value(answer).map_err(ApiError::internal)
            })
        };
        Self { name, title, description, schema: schema::<R>(), needs, call: Box::new(call) }
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether the server can do it. A model that is being loaded can nothing yet.
    pub(super) fn is_offered(&self, state: &AppState) -> bool {
        match self.needs {
            Needs::Store => state.index.is_some(),
            Needs::Model(capabilities) => capabilities.iter().any(|one| state.pool.find(None, *one).is_ok()),
        }
    }

    /// The tool as clients list it.
    pub(super) fn describe(self) -> rmcp::model::Tool {
        rmcp::model::Tool::new(self.name, self.description, self.schema)
            .with_title(self.title)
            .with_annotations(ToolAnnotations::new().read_only(true).open_world(false))
    }

    /// Computes it; an argument that it does not have is refused.
    pub(super) async fn call(&self, state: Shared, arguments: JsonObject) -> Result<Value, ApiError> {
        let known = self.schema.get("properties").and_then(Value::as_object);
        let known: Vec<&str> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        if let Some(unknown) = arguments.keys().find(|name| !known.contains(&name.as_str())) {
            return Err(ApiError::unknown("argument", unknown, known).with_kind(Kind::Invalid));
        }
        (self.call)(state, arguments).await
    }
}

/// The JSON schema of a request.
fn schema<R: PartialSchema>() -> JsonObject {
    match serde_json::to_value(R::schema()) {
        Ok(Value::Object(schema)) => schema,
        // No request is described otherwise; the test below holds that.
        _ => JsonObject::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_tool_describes_its_arguments_without_references() {
        let mut names = BTreeSet::new();
        for tool in all() {
            assert!(names.insert(tool.name), "{} is there twice", tool.name);
            let schema = Value::Object(tool.schema);
            assert_eq!(schema["type"], "object", "{}: {schema}", tool.name);
            let properties = schema["properties"].as_object().unwrap();
            assert!(!properties.is_empty(), "{}", tool.name);
            for (name, property) in properties {
                assert!(
                    property["description"].is_string() || name == "question" || name == "k",
                    "{}.{name}",
                    tool.name
                );
            }
            assert!(!schema.to_string().contains("$ref"), "{}: {schema}", tool.name);
        }
    }
}
