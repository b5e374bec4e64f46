//! Settings of generation, by default those of the folder.

use super::OutputConstraint;
use crate::{Error, Result};
use serde_json::Value;

/// When beam search stops (transformers' `early_stopping`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EarlyStopping {
    /// When a running beam, were it to end now, could not be better than the worst finished one.
    #[default]
    Heuristic,
    /// As soon as there are as many finished ones as beams.
    FirstN,
    /// Only when no running beam can become better.
    Never,
}

/// How a text is continued; transformers' `generation_config.json` in mm's words.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationConfig {
    /// Most tokens that are added.
    pub max_new_tokens: usize,
    /// Fewest tokens before the end may come.
    pub min_new_tokens: usize,
    /// Beams; greedy or drawing when 1.
    pub num_beams: usize,
    /// How many of the beams are given.
    pub num_return_sequences: usize,
    /// Sums of log-probabilities are divided by the length to this power.
    pub length_penalty: f64,
    /// When beams stop.
    pub early_stopping: EarlyStopping,
    /// Whether tokens are drawn.
    pub do_sample: bool,
    /// What scores are divided by before drawing.
    pub temperature: f64,
    /// Only so many of the likeliest are drawn from; all when 0.
    pub top_k: usize,
    /// Only the likeliest that together have this probability are drawn from (nucleus, Holtzman 2019).
    pub top_p: f64,
    /// Only those with at least this share of the likeliest's probability are drawn from.
    pub min_p: f64,
    /// Scores of tokens that were there are divided (positive) or multiplied (negative) by it (CTRL, Keskar 2019).
    pub repetition_penalty: f64,
    /// No run of so many tokens comes twice; none when 0.
    pub no_repeat_ngram_size: usize,
    /// End tokens.
    pub eos_token_id: Vec<i64>,
    /// Texts that end what is said where one of them comes; it is left away, and what follows it.
    pub stop_strings: Vec<String>,
    /// The form that what is said takes; any when absent.
    pub constraint: Option<OutputConstraint>,
    /// Tokenizer that never come.
    pub suppress_tokens: Vec<i64>,
    /// Tokenizer that never come first.
    pub begin_suppress_tokens: Vec<i64>,
    /// The token that comes first.
    pub forced_bos_token_id: Option<i64>,
    /// The token that comes last where the limit is reached.
    pub forced_eos_token_id: Option<i64>,
    /// Drawing is a function of it.
    pub seed: u64,
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 30,
            min_new_tokens: 0,
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
    /// What files of a folder say: the first that has a key counts (`generation_config.json`, then `config.json`'s parts).
    pub fn from_json(files: &[&Value]) -> Self {
        let find = |key: &str| files.iter().map(|f| &f[key]).find(|v| !v.is_null());
        let number = |key: &str| find(key).and_then(Value::as_f64);
        let count = |key: &str| find(key).and_then(Value::as_u64).map(|n| n as usize);
        let ids = |key: &str| -> Vec<i64> {
            match find(key) {
                Some(Value::Array(list)) => list.iter().filter_map(Value::as_i64).filter(|id| *id >= 0).collect(),
                Some(value) => value.as_i64().into_iter().collect(),
                None => Vec::new(),
            }
        };
        let plain = Self::default();
        Self {
            // Lengths in these files often count the prompt; only the count of new tokens is taken as it stands.
            max_new_tokens: count("max_new_tokens").or_else(|| count("max_length")).unwrap_or(plain.max_new_tokens),
            min_new_tokens: count("min_new_tokens").unwrap_or(0),
            num_beams: count("num_beams").unwrap_or(1).max(1),
            length_penalty: number("length_penalty").unwrap_or(1.0),
            early_stopping: match find("early_stopping") {
                Some(Value::Bool(true)) => EarlyStopping::FirstN,
                Some(Value::String(_)) => EarlyStopping::Never,
                _ => EarlyStopping::Heuristic,
            },
            temperature: number("temperature").unwrap_or(1.0),
            top_k: count("top_k").unwrap_or(50),
            top_p: number("top_p").unwrap_or(1.0),
            min_p: number("min_p").unwrap_or(0.0),
            repetition_penalty: number("repetition_penalty").unwrap_or(1.0),
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
            ..plain
        }
    }

    /// A text up to where the first of the stop texts comes.
    pub(crate) fn truncate_at_stop(&self, mut text: String) -> String {
        if let Some(at) = self.stop_strings.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s.as_str())).min()
        {
            text.truncate(at);
        }
        text
    }

    /// Whether a token ends a text.
    pub fn is_eos(&self, token: i64) -> bool {
        self.eos_token_id.contains(&token)
    }

    pub(crate) fn check(&self, vocabulary: i64) -> Result<()> {
        if self.num_beams == 0 {
            return Err(Error::invalid_argument("num_beams", 0, "at least 1"));
        }
        if self.num_beams as i64 * 2 > vocabulary {
            let wanted = format!("at most half of the {vocabulary} tokens that the model knows");
            return Err(Error::invalid_argument("num_beams", self.num_beams, wanted));
        }
        let outside = |name: &str, value: f64, wanted: &str| Err(Error::invalid_argument(name, value, wanted));
        if !self.temperature.is_finite() || self.temperature <= 0.0 {
            return outside("temperature", self.temperature, "a number above 0 (leave it away for the likeliest)");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return outside("top_p", self.top_p, "a share in (0, 1]");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return outside("min_p", self.min_p, "a share in [0, 1]");
        }
        if !self.repetition_penalty.is_finite() || self.repetition_penalty <= 0.0 {
            return outside("repetition_penalty", self.repetition_penalty, "a number above 0 (1 for none)");
        }
        if !self.length_penalty.is_finite() {
            return outside("length_penalty", self.length_penalty, "a number");
        }
        Ok(())
    }
}
