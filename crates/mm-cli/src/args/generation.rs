//! Options of text generation, named as in transformers.

use crate::exit::usage;
use anyhow::{Context as _, Result};
use mm_reason::generate::{GenerationConfig, OutputConstraint};
use std::path::PathBuf;

/// Options of generation; what is not given is taken from the model's generation_config.json.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Generation")]
pub(crate) struct GenerationArgs {
    /// Maximum number of generated tokens.
    #[arg(long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,
    /// Minimum number of generated tokens.
    #[arg(long, value_name = "N")]
    min_new_tokens: Option<usize>,
    /// Number of beams; 1 is greedy search.
    #[arg(long, value_name = "N")]
    num_beams: Option<usize>,
    /// Exponent of the length by which beam scores are divided: above 0 favors longer texts, below 0 shorter ones.
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    length_penalty: Option<f64>,
    /// Sample with this temperature instead of taking the most likely token.
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Sample from the K most likely tokens; 0 for all.
    #[arg(long, value_name = "K", requires = "temperature")]
    top_k: Option<usize>,
    /// Sample from the most likely tokens whose probabilities add up to P.
    #[arg(long, value_name = "P", requires = "temperature")]
    top_p: Option<f64>,
    /// Sample from tokens with at least this fraction of the most likely token's probability.
    #[arg(long, value_name = "P", requires = "temperature")]
    min_p: Option<f64>,
    /// Make tokens that occurred before less likely (above 1).
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f64>,
    /// No n-gram of this size occurs twice.
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<usize>,
    /// End the text before this string; may be repeated.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Generate only text that matches this regular expression as a whole.
    #[arg(long, value_name = "RE", conflicts_with = "json_schema")]
    regex: Option<String>,
    /// Generate JSON that conforms to the schema in this file.
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Random seed of sampling.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl GenerationArgs {
    /// These options over a model's own settings.
    pub(crate) fn override_config(&self, base: &GenerationConfig) -> Result<GenerationConfig> {
        let constraint = match (&self.regex, &self.json_schema) {
            (Some(text), _) => Some(OutputConstraint::Regex(text.clone())),
            (None, Some(file)) => {
                let text = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
                let schema = serde_json::from_slice(&text).with_context(|| format!("{}: not JSON", file.display()))?;
                Some(OutputConstraint::JsonSchema(schema))
            }
            (None, None) => None,
        };
        Ok(GenerationConfig {
            max_new_tokens: self.max_new_tokens.unwrap_or(base.max_new_tokens),
            max_length: base.max_length.filter(|_| self.max_new_tokens.is_none()),
            min_new_tokens: self.min_new_tokens.unwrap_or(base.min_new_tokens),
            min_length: if self.min_new_tokens.is_some() { 0 } else { base.min_length },
            num_beams: self.num_beams.unwrap_or(if self.temperature.is_some() { 1 } else { base.num_beams }),
            length_penalty: self.length_penalty.unwrap_or(base.length_penalty),
            do_sample: self.temperature.is_some(),
            temperature: self.temperature.unwrap_or(1.0),
            top_k: self.top_k.unwrap_or(base.top_k),
            top_p: self.top_p.unwrap_or(base.top_p),
            min_p: self.min_p.unwrap_or(base.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(base.repetition_penalty),
            no_repeat_ngram_size: self.no_repeat_ngram_size.unwrap_or(base.no_repeat_ngram_size),
            stop_strings: if self.stop.is_empty() { base.stop_strings.clone() } else { self.stop.clone() },
            constraint: constraint.or_else(|| base.constraint.clone()),
            seed: self.seed,
            ..base.clone()
        })
    }

    /// Refuses constraints on the text where the model cannot follow them.
    pub(crate) fn refuse_constraints(&self, reason: &str) -> Result<()> {
        if self.regex.is_some() || self.json_schema.is_some() || !self.stop.is_empty() {
            usage!("--regex, --json-schema, --stop: {reason}");
        }
        Ok(())
    }
}
