//! Options of generation, as OpenAI names them, over a model's own.

use crate::{
    config::Limits,
    engine::Room,
    error::{ApiError, shortened},
};
use mm_reason::generate::{GenerationConfig, OutputConstraint};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// Tokens of an answer where neither the client nor the model says how many.
const DEFAULT_MAX_NEW_TOKENS: usize = 256;
/// Choices of one request.
const MAX_CHOICES: usize = 16;
/// Texts that end a generation.
const MAX_STOPS: usize = 16;

/// Options of generation.
#[derive(Deserialize, ToSchema, Default, Clone)]
pub(crate) struct GenerationOptions {
    /// Maximum number of generated tokens.
    #[serde(default)]
    max_completion_tokens: Option<usize>,
    /// The older name of `max_completion_tokens`.
    #[serde(default)]
    max_tokens: Option<usize>,
    /// 0 takes the most likely token; above, tokens are sampled. The model's own setting when absent.
    #[serde(default)]
    temperature: Option<f64>,
    /// Samples among the most likely tokens whose probabilities add up to it.
    #[serde(default)]
    top_p: Option<f64>,
    /// Samples among so many of the most likely tokens; 0 and -1 among all. The model's own setting when absent.
    #[serde(default)]
    top_k: Option<i64>,
    /// Above 1, tokens that are there already become less likely. The model's own setting when absent.
    #[serde(default)]
    repetition_penalty: Option<f64>,
    /// Random seed of sampling; a new one when absent.
    #[serde(default)]
    seed: Option<i64>,
    /// One or more texts before which the output ends.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    stop: Option<Stop>,
    /// `{"type": "text"}`, `{"type": "json_object"}` or `{"type": "json_schema", "json_schema": {"schema": …}}`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    response_format: Option<Value>,
    /// Number of answers.
    #[serde(default)]
    n: Option<usize>,
}

#[derive(Deserialize, Clone)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum Stop {
    One(String),
    Several(Vec<String>),
}

impl GenerationOptions {
    /// Number of answers.
    pub(super) fn choices(&self) -> Result<usize, ApiError> {
        let n = self.n.unwrap_or(1);
        match n {
            0 => Err(ApiError::invalid("n", 0, "at least 1")),
            n if n > MAX_CHOICES => Err(ApiError::too_large("n", n, format!("at most {MAX_CHOICES}"))),
            n => Ok(n),
        }
    }

    /// These options over those of a model, for a prompt that leaves some room; one text, without beams where it is
    /// streamed.
    pub(super) fn over(
        &self,
        base: &GenerationConfig,
        limits: &Limits,
        room: Option<Room>,
        stream: bool,
    ) -> Result<GenerationConfig, ApiError> {
        let mut config = GenerationConfig { num_return_sequences: 1, ..base.clone() };
        if stream {
            config.num_beams = 1;
        }
        let wanted = self.max_completion_tokens.or(self.max_tokens);
        if wanted == Some(0) {
            return Err(ApiError::invalid("max_completion_tokens", 0, "at least 1"));
        }
        if let Some(wanted) = wanted.filter(|wanted| *wanted > limits.max_new_tokens) {
            return Err(ApiError::too_large(
                "max_completion_tokens",
                wanted,
                format!("at most {}", limits.max_new_tokens),
            ));
        }
        config.max_new_tokens =
            wanted.unwrap_or(config.max_new_tokens.max(DEFAULT_MAX_NEW_TOKENS)).min(limits.max_new_tokens);
        config.max_length = None;
        if let Some(room) = room {
            // What the client did not ask for ends with the model's positions.
            let new = wanted.unwrap_or_else(|| config.max_new_tokens.min(room.left()).max(1));
            room.check(new)?;
            config.max_new_tokens = new;
        }
        self.set_sampling(&mut config)?;
        match &self.stop {
            Some(Stop::One(text)) => config.stop_strings = vec![text.clone()],
            Some(Stop::Several(texts)) => config.stop_strings.clone_from(texts),
            None => {}
        }
        if config.stop_strings.len() > MAX_STOPS || config.stop_strings.iter().any(String::is_empty) {
            return Err(ApiError::invalid(
                "stop",
                format!("{} texts, or an empty one", config.stop_strings.len()),
                format!("1 to {MAX_STOPS} texts"),
            ));
        }
        config.constraint = self.constraint()?.or(config.constraint);
        Ok(config)
    }

    fn set_sampling(&self, config: &mut GenerationConfig) -> Result<(), ApiError> {
        if let Some(temperature) = self.temperature {
            if !(0.0..=2.0).contains(&temperature) {
                return Err(ApiError::invalid("temperature", temperature, "0 to 2"));
            }
            config.do_sample = temperature > 0.0;
            config.temperature = if config.do_sample { temperature } else { 1.0 };
            config.num_beams = 1;
        }
        if let Some(top_p) = self.top_p {
            if !(top_p > 0.0 && top_p <= 1.0) {
                return Err(ApiError::invalid("top_p", top_p, "more than 0 and at most 1"));
            }
            config.top_p = top_p;
        }
        if let Some(top_k) = self.top_k {
            let expected = "at least 1, or 0 for all tokens";
            let top_k = usize::try_from(if top_k == -1 { 0 } else { top_k });
            config.top_k = top_k.map_err(|_| ApiError::invalid("top_k", "less than -1", expected))?;
        }
        if let Some(penalty) = self.repetition_penalty {
            if !(penalty > 0.0 && penalty <= 10.0) {
                return Err(ApiError::invalid("repetition_penalty", penalty, "more than 0 and at most 10"));
            }
            config.repetition_penalty = penalty;
        }
        config.seed = self.seed.map_or(config.seed, |seed| seed as u64);
        Ok(())
    }

    fn constraint(&self) -> Result<Option<OutputConstraint>, ApiError> {
        let Some(format) = &self.response_format else { return Ok(None) };
        match format["type"].as_str() {
            Some("text") => Ok(None),
            Some("json_object") => Ok(Some(OutputConstraint::JsonSchema(json!({"type": "object"})))),
            Some("json_schema") if format["json_schema"]["schema"].is_object() => {
                Ok(Some(OutputConstraint::JsonSchema(format["json_schema"]["schema"].clone())))
            }
            _ => {
                let expected = "{\"type\": \"text\" | \"json_object\"} or {\"type\": \"json_schema\", \"json_schema\": {\"schema\": …}}";
                Err(ApiError::invalid("response_format", shortened(&format.to_string()), expected))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(options: Value) -> Result<GenerationConfig, ApiError> {
        let options: GenerationOptions = serde_json::from_value(options).unwrap();
        let base = GenerationConfig { num_beams: 3, max_length: Some(20), ..GenerationConfig::default() };
        options.over(&base, &Limits::default(), Some(Room { prompt: 20, positions: 300 }), false)
    }

    #[test]
    fn options_replace_those_of_the_model() {
        let plain = read(json!({})).unwrap();
        assert_eq!((plain.num_beams, plain.max_new_tokens, plain.do_sample), (3, DEFAULT_MAX_NEW_TOKENS, false));
        let sampled = read(json!({"temperature": 0.7, "top_p": 0.9, "seed": 5, "max_tokens": 7, "stop": "."})).unwrap();
        assert!(sampled.do_sample && sampled.num_beams == 1 && sampled.max_length.is_none());
        assert_eq!((sampled.seed, sampled.max_new_tokens, sampled.stop_strings), (5, 7, vec![".".to_owned()]));
        assert!(!read(json!({"temperature": 0})).unwrap().do_sample);
        let penalized = read(json!({"top_k": 3, "repetition_penalty": 1.5})).unwrap();
        assert_eq!((penalized.top_k, penalized.repetition_penalty), (3, 1.5));
        let schema = json!({"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}});
        assert!(read(json!({"response_format": schema})).unwrap().constraint.is_some());
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for wrong in [
            json!({"temperature": 3}),
            json!({"temperature": -1}),
            json!({"top_p": 0}),
            json!({"max_tokens": 0}),
            json!({"max_completion_tokens": 1_000_000}),
            json!({"stop": [""]}),
            json!({"top_k": -2}),
            json!({"repetition_penalty": 0}),
            json!({"max_tokens": 281}),
            json!({"response_format": {"type": "xml"}}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        let choices = |n: usize| GenerationOptions { n: Some(n), ..GenerationOptions::default() }.choices();
        assert!(choices(0).is_err() && choices(1_000_000).is_err() && choices(2).is_ok());
    }

    #[test]
    fn a_short_context_limits_the_default() {
        let base = GenerationConfig::default();
        let room = |prompt| Some(Room { prompt, positions: 100 });
        let over = |prompt| GenerationOptions::default().over(&base, &Limits::default(), room(prompt), false);
        assert_eq!(over(60).unwrap().max_new_tokens, 40);
        let error = over(100).unwrap_err().body();
        assert_eq!(
            (&error["error"]["code"], &error["error"]["param"]),
            (&json!("context_length_exceeded"), &json!("messages"))
        );
    }
}
