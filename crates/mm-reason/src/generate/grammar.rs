//! Constrained decoding: the output matches a regular expression, a JSON schema or a grammar, with llguidance.

use super::constraint::{OutputConstraint, TokenConstraint};
use crate::{Error, Result};
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Maximum number of cached prefixes. Beams need one each; others are parsed again.
const CACHED_PREFIXES: usize = 256;

/// An [`OutputConstraint`] compiled for a tokenizer.
pub struct GrammarConstraint {
    initial: Mutex<Matcher>,
    cache: Mutex<HashMap<Vec<i64>, Matcher>>,
    eos_token_id: i64,
}

impl GrammarConstraint {
    /// Compiles a constraint for tokens given by their bytes; special tokens start with 0xFF.
    pub(crate) fn new(constraint: &OutputConstraint, tokens: &[Vec<u8>], eos_token_id: i64) -> Result<Self> {
        let info = TokRxInfo {
            vocab_size: tokens.len() as u32,
            tok_eos: u32::try_from(eos_token_id).unwrap_or(0),
            tok_bos: None,
            tok_pad: None,
            tok_unk: None,
            tok_end_of_turn: None,
        };
        let (name, shown) = match constraint {
            OutputConstraint::Regex(text) => ("--regex", text.clone()),
            OutputConstraint::JsonSchema(schema) => ("--json-schema", schema.to_string()),
            OutputConstraint::Lark(text) => ("grammar", text.clone()),
        };
        // The message is the last line of llguidance's error, after an excerpt of the grammar.
        let message =
            |text: String| text.lines().rev().find(|l| l.starts_with("error:")).unwrap_or(&text).replace('\n', " ");
        let error = |text: String| {
            Error::invalid_argument(name, &shown, format!("one that llguidance supports: {}", message(text)))
        };
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, tokens)));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| error(e.to_string()))?;
        factory.quiet();
        let mut initial = Matcher::new(factory.create_parser(grammar(constraint)));
        if let Some(text) = initial.get_error() {
            return Err(error(text));
        }
        // Fails now, not at the first token, where no text matches.
        initial.compute_mask_or_eos().map_err(|e| error(e.to_string()))?;
        Ok(Self { initial: Mutex::new(initial), cache: Mutex::default(), eos_token_id })
    }
}

/// The constraint as llguidance's grammar. In most vocabularies the first word of an output starts with a space, so an
/// initial space is allowed.
fn grammar(constraint: &OutputConstraint) -> TopLevelGrammar {
    match constraint {
        OutputConstraint::Regex(text) => TopLevelGrammar::from_regex(&format!("( )?(?:{text})")),
        OutputConstraint::JsonSchema(schema) => {
            let mut schema = schema.clone();
            if let Some(table) = schema.as_object_mut() {
                // Without this, endless whitespace is valid, and small models generate it.
                let options = serde_json::json!({
                    "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ",
                });
                table.entry("x-guidance").or_insert(options);
            }
            TopLevelGrammar::from_lark(format!("start: json | \" \" json\njson: %json {schema}"))
        }
        OutputConstraint::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
    }
}

impl TokenConstraint for GrammarConstraint {
    fn allowed_next(&self, generated: &[i64]) -> Option<Vec<i64>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let mut matcher = cache.get(generated).map(Matcher::deep_clone);
        if let (None, Some((last, before))) = (&matcher, generated.split_last()) {
            matcher = cache.get(before).map(Matcher::deep_clone).map(|mut m| {
                let _ = m.consume_token(*last as u32);
                m
            });
        }
        let mut matcher = matcher.unwrap_or_else(|| {
            let mut initial = self.initial.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
            let ids: Vec<u32> = generated.iter().map(|id| *id as u32).collect();
            let _ = initial.consume_tokens(&ids);
            initial
        });
        // Where no token matches (the vocabulary lacks what the constraint needs), the sequence ends.
        let allowed = matcher
            .compute_mask_or_eos()
            .map_or_else(|_| vec![self.eos_token_id], |mask| mask.iter().map(i64::from).collect());
        if cache.len() >= CACHED_PREFIXES {
            cache.clear();
        }
        cache.insert(generated.to_vec(), matcher);
        Some(allowed)
    }
}
