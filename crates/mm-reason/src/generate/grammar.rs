//! What is said takes a form: a regular expression, a JSON schema, a grammar. Which tokens may come next is llguidance's to say.

use super::TokenConstraint;
use crate::{Error, Result};
use llguidance::{
    Matcher, ParserFactory,
    api::TopLevelGrammar,
    toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A form that a text takes.
#[derive(Debug, Clone, PartialEq)]
pub enum OutputConstraint {
    /// A regular expression (Rust's syntax) that the whole text matches.
    Regex(String),
    /// A JSON schema.
    JsonSchema(Value),
    /// A grammar in llguidance's kind of Lark.
    Lark(String),
}

/// Most prefixes whose state is kept; beams need their own, and what is forgotten is read again.
const KEPT: usize = 256;

/// A form, ready for a tokenizer.
pub struct GrammarConstraint {
    fresh: Mutex<Matcher>,
    known: Mutex<HashMap<Vec<i64>, Matcher>>,
    end: i64,
}

impl GrammarConstraint {
    /// Of tokens by their bytes (a special one begins with 0xFF); `end` ends a text.
    pub(crate) fn new(form: &OutputConstraint, tokens: &[Vec<u8>], end: i64) -> Result<Self> {
        let info = TokRxInfo {
            vocab_size: tokens.len() as u32,
            tok_eos: u32::try_from(end).unwrap_or(0),
            tok_bos: None,
            tok_pad: None,
            tok_unk: None,
            tok_end_of_turn: None,
        };
        let (name, shown) = match form {
            OutputConstraint::Regex(text) => ("--regex", text.clone()),
            OutputConstraint::JsonSchema(schema) => ("--json-schema", schema.to_string()),
            OutputConstraint::Lark(text) => ("grammar", text.clone()),
        };
        // What went wrong stands in the last line, below the place that it shows.
        let why =
            |text: String| text.lines().rev().find(|l| l.starts_with("error:")).unwrap_or(&text).replace('\n', " ");
        let bad =
            |text: String| Error::invalid_argument(name, &shown, format!("one that llguidance reads: {}", why(text)));
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(TokTrie::from(&info, tokens)));
        let mut factory = ParserFactory::new_simple(&environment).map_err(|e| bad(e.to_string()))?;
        factory.quiet();
        // Texts that follow words begin with a space in most vocabularies.
        let grammar = match form {
            OutputConstraint::Regex(text) => TopLevelGrammar::from_regex(&format!("( )?(?:{text})")),
            OutputConstraint::JsonSchema(schema) => {
                let mut schema = schema.clone();
                if let Some(table) = schema.as_object_mut() {
                    // Space without end would fit too, and small models like it.
                    let told = serde_json::json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
                    table.entry("x-guidance").or_insert(told);
                }
                TopLevelGrammar::from_lark(format!("start: json | \" \" json\njson: %json {schema}"))
            }
            OutputConstraint::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
        };
        let mut fresh = Matcher::new(factory.create_parser(grammar));
        if let Some(error) = fresh.get_error() {
            return Err(bad(error));
        }
        // A form that nothing fits is told now, not at the first word.
        fresh.compute_mask_or_eos().map_err(|e| bad(e.to_string()))?;
        Ok(Self { fresh: Mutex::new(fresh), known: Mutex::default(), end })
    }
}

impl TokenConstraint for GrammarConstraint {
    fn next(&self, said: &[i64]) -> Option<Vec<i64>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut matcher = known.get(said).map(Matcher::deep_clone);
        if let (None, Some((last, before))) = (&matcher, said.split_last()) {
            matcher = known.get(before).map(Matcher::deep_clone).map(|mut m| {
                let _ = m.consume_token(*last as u32);
                m
            });
        }
        let mut matcher = matcher.unwrap_or_else(|| {
            let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner).deep_clone();
            let ids: Vec<u32> = said.iter().map(|id| *id as u32).collect();
            let _ = fresh.consume_tokens(&ids);
            fresh
        });
        // Where nothing fits any more (the vocabulary lacks what the form needs), the text ends.
        let allowed =
            matcher.compute_mask_or_eos().map_or_else(|_| vec![self.end], |m| m.iter().map(i64::from).collect());
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(said.to_vec(), matcher);
        Some(allowed)
    }
}
