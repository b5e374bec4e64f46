//! Fields of OpenAI's and other servers' requests that no model of mm has: refused by name, since an answer without them
//! would be another one than was asked for.

use crate::error::{ApiError, shortened};
use serde_json::{Map, Value};

/// The values of a field that change no answer; null, which is dropped before, is always one.
#[derive(Clone, Copy)]
pub(super) enum Neutral {
    /// No other.
    Null,
    Zero,
    False,
    /// An empty text, list or object.
    Empty,
    /// One of these texts.
    Texts(&'static [&'static str]),
}

impl Neutral {
    fn has(self, value: &Value) -> bool {
        match self {
            Self::Null => value.is_null(),
            Self::Zero => value.as_f64() == Some(0.0),
            Self::False => *value == false,
            Self::Empty => match value {
                Value::String(text) => text.is_empty(),
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => false,
            },
            Self::Texts(texts) => value.as_str().is_some_and(|text| texts.contains(&text)),
        }
    }
}

/// The name of a field, its values that are accepted, and what is expected where it has another.
pub(super) type Unsupported = (&'static str, Neutral, &'static str);

const NO_TOOLS: &str = "none: models of mm call no tools";
const NO_GUIDE: &str = "none: `response_format` takes a JSON schema";

/// Of `/v1/chat/completions`, as OpenAI and vLLM take them.
pub(super) const CHAT: [Unsupported; 21] = [
    ("tools", Neutral::Empty, NO_TOOLS),
    ("functions", Neutral::Empty, NO_TOOLS),
    ("function_call", Neutral::Texts(&["none", "auto"]), NO_TOOLS),
    ("logprobs", Neutral::False, "false"),
    ("top_logprobs", Neutral::Zero, "0"),
    ("presence_penalty", Neutral::Zero, "0, or `repetition_penalty` instead"),
    ("frequency_penalty", Neutral::Zero, "0, or `repetition_penalty` instead"),
    ("logit_bias", Neutral::Empty, "none"),
    ("min_p", Neutral::Zero, "0, or `top_p` or `top_k` instead"),
    ("min_tokens", Neutral::Zero, "0"),
    ("stop_token_ids", Neutral::Empty, "none, or texts in `stop`"),
    ("ignore_eos", Neutral::False, "false"),
    ("guided_json", Neutral::Null, NO_GUIDE),
    ("guided_regex", Neutral::Null, NO_GUIDE),
    ("guided_choice", Neutral::Null, NO_GUIDE),
    ("guided_grammar", Neutral::Null, NO_GUIDE),
    ("guided_decoding_backend", Neutral::Null, NO_GUIDE),
    ("guided_whitespace_pattern", Neutral::Null, NO_GUIDE),
    ("structured_outputs", Neutral::Null, NO_GUIDE),
    ("regex", Neutral::Null, NO_GUIDE),
    ("ebnf", Neutral::Null, NO_GUIDE),
];

/// Of `/v1/embeddings`, as Jina and Voyage take them.
pub(super) const EMBEDDINGS: [Unsupported; 6] = [
    ("input_type", Neutral::Empty, "none"),
    ("output_dimension", Neutral::Null, "none; `dimensions` instead"),
    ("output_dtype", Neutral::Texts(&["float"]), "float"),
    ("task", Neutral::Empty, "none"),
    ("embedding_type", Neutral::Texts(&["float"]), "float; `encoding_format` is float or base64"),
    ("late_chunking", Neutral::False, "false"),
];

/// Refuses a field that is not supported, among those that a route does not read.
pub(super) fn refuse(fields: &Map<String, Value>, unsupported: &[Unsupported]) -> Result<(), ApiError> {
    for (name, neutral, expected) in unsupported {
        if let Some(value) = fields.get(*name).filter(|value| !neutral.has(value)) {
            return Err(ApiError::invalid(name, shortened(&value.to_string()), expected));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_that_ask_for_something_are_refused_by_the_name_of_their_field() {
        let unsupported = [
            ("a", Neutral::Null, "none"),
            ("b", Neutral::Zero, "0"),
            ("c", Neutral::False, "false"),
            ("d", Neutral::Empty, "none"),
            ("e", Neutral::Texts(&["none", "auto"]), "none"),
        ];
        let check = |fields: Value| refuse(fields.as_object().unwrap(), &unsupported);
        for fields in [
            json!({}),
            json!({"user": "me", "b": 0, "c": false, "d": [], "e": "auto"}),
            json!({"b": -0.0, "d": {}, "e": "none"}),
            json!({"d": ""}),
        ] {
            assert!(check(fields.clone()).is_ok(), "{fields}");
        }
        for fields in [json!({"a": {}}), json!({"b": 0.5}), json!({"c": true}), json!({"d": [1]}), json!({"e": "x"})] {
            let (name, value) = fields.as_object().unwrap().iter().next().unwrap();
            let error = check(fields.clone()).unwrap_err();
            assert!(error.message().starts_with(&format!("{name}: found {value}, expected ")), "{}", error.message());
            assert_eq!(error.body()["error"]["param"], name.as_str());
        }
    }
}
