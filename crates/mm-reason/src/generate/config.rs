//! Options of generation.

use super::constraint::OutputConstraint;
use crate::{Error, Result};
use serde::Serialize;
use serde_json::Value;

/// When beam search stops; transformers' `early_stopping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EarlyStopping {
    /// When a running beam, if it ended now, could not beat the worst finished one (`false`).
    #[default]
    Heuristic,
    /// As soon as there are as many finished beams as `num_beams` (`true`).
    FirstN,
    /// Only when no running beam can become better (`"never"`).
    Never,
}

/// Options of generation, with the names and meanings of transformers' `GenerationConfig`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenerationConfig {
    /// Maximum number of generated tokens.
    pub max_new_tokens: usize,
    /// Maximum number of tokens with the prompt's, where a checkpoint states its limit so; it holds as well as
    /// `max_new_tokens`.
    pub max_length: Option<usize>,
    /// Minimum number of tokens before the end token.
    pub min_new_tokens: usize,
    /// Minimum number of tokens before the end token with the prompt's.
    pub min_length: usize,
    /// Number of beams; 1 for greedy search or sampling.
    pub num_beams: usize,
    /// Number of beams that are returned.
    pub num_return_sequences: usize,
    /// Beams are ranked by their log-probability divided by their length to this power.
    pub length_penalty: f64,
    /// When beam search stops.
    pub early_stopping: EarlyStopping,
    /// Whether tokens are sampled.
    pub do_sample: bool,
    /// Logits are divided by it before sampling.
    pub temperature: f64,
    /// Samples among this many of the most probable tokens; 0 for all.
    pub top_k: usize,
    /// Samples among the most probable tokens whose probabilities add up to it: nucleus sampling, *The Curious Case of
    /// Neural Text Degeneration* (Holtzman et al., 2019), <https://arxiv.org/abs/1904.09751>.
    pub top_p: f64,
    /// Samples among tokens with at least this fraction of the highest probability.
    pub min_p: f64,
    /// Divides positive and multiplies negative logits of tokens that occurred: *CTRL: A Conditional Transformer
    /// Language Model for Controllable Generation* (Keskar et al., 2019), <https://arxiv.org/abs/1909.05858>.
    pub repetition_penalty: f64,
    /// N-grams of this size occur only once; 0 for no limit.
    pub no_repeat_ngram_size: usize,
    /// Tokens that end a sequence.
    pub eos_token_id: Vec<i64>,
    /// Strings that end a sequence; the output stops before the first of them.
    pub stop_strings: Vec<String>,
    /// Constraint that the whole output satisfies.
    pub constraint: Option<OutputConstraint>,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<i64>,
    /// Tokens that are never generated first.
    pub begin_suppress_tokens: Vec<i64>,
    /// The first token.
    pub forced_bos_token_id: Option<i64>,
    /// The last token, where the maximum length is reached.
    pub forced_eos_token_id: Option<i64>,
    /// Random seed of sampling.
    pub seed: u64,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 30,
            max_length: None,
            min_new_tokens: 0,
            min_length: 0,
            num_beams: 1,
            num_return_sequences: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::Heuristic,
            do_sample: false,
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            no_repeat_ngram_size: 0,
            eos_token_id: Vec::new(),
            stop_strings: Vec::new(),
            constraint: None,
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_id: None,
            seed: 0,
        }
    }
}

impl GenerationConfig {
    /// Reads the options from a checkpoint's JSON files; the first file with a key counts (`generation_config.json`,
    /// then the parts of `config.json`).
    pub fn from_json(files: &[&Value]) -> Self {
        let find = |key: &str| files.iter().map(|f| &f[key]).find(|v| !v.is_null());
        let float = |key: &str| find(key).and_then(Value::as_f64);
        let count = |key: &str| find(key).and_then(Value::as_u64).map(|n| n as usize);
        let ids = |key: &str| -> Vec<i64> {
            match find(key) {
                Some(Value::Array(list)) => list.iter().filter_map(Value::as_i64).filter(|id| *id >= 0).collect(),
                Some(value) => value.as_i64().into_iter().collect(),
                None => Vec::new(),
            }
        };
        let default = Self::default();
        let max_length = if find("max_new_tokens").is_some() { None } else { count("max_length") };
        let min_length = if find("min_new_tokens").is_some() { None } else { count("min_length") };
        Self {
            max_new_tokens: count("max_new_tokens").or(max_length).unwrap_or(default.max_new_tokens),
            max_length,
            min_new_tokens: count("min_new_tokens").unwrap_or(0),
            min_length: min_length.unwrap_or(0),
            num_beams: count("num_beams").unwrap_or(1).max(1),
            length_penalty: float("length_penalty").unwrap_or(1.0),
            early_stopping: match find("early_stopping") {
                Some(Value::Bool(true)) => EarlyStopping::FirstN,
                Some(Value::String(_)) => EarlyStopping::Never,
                _ => EarlyStopping::Heuristic,
            },
            temperature: float("temperature").unwrap_or(1.0),
            top_k: count("top_k").unwrap_or(50),
            top_p: float("top_p").unwrap_or(1.0),
            min_p: float("min_p").unwrap_or(0.0),
            repetition_penalty: float("repetition_penalty").unwrap_or(1.0),
            no_repeat_ngram_size: count("no_repeat_ngram_size").unwrap_or(0),
            eos_token_id: ids("eos_token_id"),
            stop_strings: match find("stop_strings") {
                Some(Value::String(text)) => vec![text.clone()],
                Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(ToOwned::to_owned).collect(),
                _ => Vec::new(),
            },
            suppress_tokens: ids("suppress_tokens"),
            begin_suppress_tokens: ids("begin_suppress_tokens"),
            forced_bos_token_id: ids("forced_bos_token_id").first().copied(),
            forced_eos_token_id: ids("forced_eos_token_id").first().copied(),
            ..default
        }
    }

    /// The options for a prompt of this many tokens: limits that count the prompt become limits of the new tokens.
    ///
    /// # Errors
    /// If the prompt leaves no token.
    pub(crate) fn for_prompt(&self, prompt_length: usize) -> Result<Self> {
        let mut config = self.clone();
        config.min_new_tokens = self.min_new_tokens.max(self.min_length.saturating_sub(prompt_length));
        if let Some(max_length) = self.max_length {
            if prompt_length >= max_length {
                let expected = format!("fewer than the checkpoint's max_length of {max_length}; set max_new_tokens");
                return Err(Error::invalid_argument("number of prompt tokens", prompt_length, expected));
            }
            config.max_new_tokens = self.max_new_tokens.min(max_length - prompt_length);
        }
        Ok(config)
    }

    /// The text up to the first stop string.
    pub(crate) fn truncate_at_stop(&self, mut text: String) -> String {
        let stops = self.stop_strings.iter().filter(|s| !s.is_empty());
        if let Some(end) = stops.filter_map(|s| text.find(s.as_str())).min() {
            text.truncate(end);
        }
        text
    }

    /// Whether a token ends a sequence.
    pub fn is_eos(&self, token: i64) -> bool {
        self.eos_token_id.contains(&token)
    }

    pub(super) fn validate(&self, vocab_size: i64) -> Result<()> {
        if self.num_beams == 0 {
            return Err(Error::invalid_argument("num_beams", 0, "at least 1"));
        }
        if self.num_beams as i64 * 2 > vocab_size {
            let expected = format!("at most half of the vocabulary of {vocab_size} tokens");
            return Err(Error::invalid_argument("num_beams", self.num_beams, expected));
        }
        let out_of_range = |name: &str, value: f64, expected: &str| Err(Error::invalid_argument(name, value, expected));
        if !self.temperature.is_finite() || self.temperature <= 0.0 {
            return out_of_range("temperature", self.temperature, "above 0 (omit it for greedy search)");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return out_of_range("top_p", self.top_p, "a probability in (0, 1]");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return out_of_range("min_p", self.min_p, "a fraction in [0, 1]");
        }
        if !self.repetition_penalty.is_finite() || self.repetition_penalty <= 0.0 {
            return out_of_range("repetition_penalty", self.repetition_penalty, "above 0 (1 for no penalty)");
        }
        if !self.length_penalty.is_finite() {
            return out_of_range("length_penalty", self.length_penalty, "a finite number");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_of_the_length_count_the_prompt_and_limits_of_new_tokens_do_not() {
        let read = |json: Value| GenerationConfig::from_json(&[&json]);
        let limits = |config: &GenerationConfig, prompt: usize| {
            let config = config.for_prompt(prompt).unwrap();
            (config.min_new_tokens, config.max_new_tokens)
        };
        let length = read(json!({"max_length": 20, "min_length": 8}));
        assert_eq!((limits(&length, 1), limits(&length, 12)), ((7, 19), (0, 8)));
        let error = length.for_prompt(20).unwrap_err().to_string();
        assert!(error.contains("found 20") && error.contains("max_length of 20"), "{error}");
        // max_new_tokens goes before max_length, as in transformers.
        let both = read(json!({"max_length": 20, "max_new_tokens": 5, "min_new_tokens": 2, "min_length": 9}));
        assert_eq!(limits(&both, 40), (2, 5));
        assert_eq!(limits(&read(json!({})), 40), (0, 30));
    }
}
