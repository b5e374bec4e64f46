//! Tokens that a folder adds to its vocabulary: special tokens, which are never split, `added_tokens.json`, and the
//! `added_tokens_decoder` of `tokenizer_config.json`.

use crate::{Error, Result, json::read_json};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};
use tokenizers::{AddedToken, Tokenizer};

/// Roles of special tokens in `tokenizer_config.json` and `special_tokens_map.json`.
const ROLES: [&str; 7] = ["unk_token", "sep_token", "pad_token", "cls_token", "mask_token", "bos_token", "eos_token"];

/// The special tokens that a folder's configs name.
pub(super) struct SpecialTokens {
    config: Value,
    map: Value,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json` and `special_tokens_map.json`, where they exist.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| read_json(&folder.join(name));
        Ok(Self { config: read("tokenizer_config.json")?, map: read("special_tokens_map.json")? })
    }

    /// The token of a role; `None` where the folder leaves it out.
    pub(super) fn role(&self, role: &str) -> Option<AddedToken> {
        [&self.config, &self.map].iter().find_map(|file| added_token(&file[role], true))
    }

    /// All special tokens: those of the roles, with these defaults, and the additional ones.
    fn all(&self, defaults: &[&str]) -> Vec<AddedToken> {
        let roles = ROLES.iter().filter_map(|role| self.role(role));
        let lists = [&self.config, &self.map].into_iter().flat_map(|file| {
            ["additional_special_tokens", "extra_special_tokens"].into_iter().filter_map(|key| file[key].as_array())
        });
        let additional = lists.flatten().filter_map(|token| added_token(token, true));
        let defaults = defaults.iter().map(|token| plain_token(token, true));
        let mut all: Vec<AddedToken> = Vec::new();
        for token in roles.chain(additional).chain(defaults) {
            if !all.iter().any(|known| known.content == token.content) {
                all.push(token);
            }
        }
        all
    }
}

/// A token without flags of its own; RoBERTa's and MPNet's mask takes the space before it.
fn plain_token(text: &str, special: bool) -> AddedToken {
    AddedToken::from(text, special).lstrip(text == "<mask>")
}

/// A token as text, or as an object with its flags.
fn added_token(value: &Value, special: bool) -> Option<AddedToken> {
    if let Some(text) = value.as_str() {
        return Some(plain_token(text, special));
    }
    let flag = |key: &str, default: bool| value[key].as_bool().unwrap_or(default);
    let special = flag("special", special);
    let token = AddedToken::from(value["content"].as_str()?, special);
    let normalized = flag("normalized", token.normalized);
    let token = token.lstrip(flag("lstrip", false)).rstrip(flag("rstrip", false));
    Some(token.single_word(flag("single_word", false)).normalized(normalized))
}

/// Adds a folder's tokens to a tokenizer that was made from its bare vocabulary; `defaults` are the special tokens of
/// its kind, of which those in the vocabulary count.
///
/// # Errors
/// If a token has another id than the files say: ids would shift.
pub(super) fn add_tokens(tokenizer: &mut Tokenizer, folder: &Path, defaults: &[&str]) -> Result<()> {
    let special = SpecialTokens::open(folder)?;
    let all_special = special.all(defaults);
    let mut by_id: BTreeMap<u32, AddedToken> = BTreeMap::new();
    let legacy = folder.join("added_tokens.json");
    for (token, id) in read_json(&legacy)?.as_object().into_iter().flatten() {
        let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
        let id = id.ok_or_else(|| Error::folder(&legacy, format!("{token}: expected an id")))?;
        let known = all_special.iter().find(|s| s.content == *token);
        by_id.insert(id, known.cloned().unwrap_or_else(|| AddedToken::from(token.as_str(), false)));
    }
    by_id.extend(decoder_tokens(&special.config));
    let (inside, beyond): (Vec<_>, Vec<_>) = all_special
        .into_iter()
        .filter(|token| !by_id.values().any(|t| t.content == token.content))
        .partition(|token| tokenizer.token_to_id(&token.content).is_some());
    tokenizer.add_special_tokens(&inside);
    add_with_ids(tokenizer, folder, by_id)?;
    // A special token that the configs name and no file has an id for gets the next one, as in transformers.
    let named: Vec<AddedToken> = beyond.into_iter().filter(|t| !defaults.contains(&t.content.as_str())).collect();
    tokenizer.add_special_tokens(&named);
    Ok(())
}

/// Adds the tokens of `tokenizer_config.json` that a `tokenizer.json` lacks.
///
/// # Errors
/// Those of [`add_tokens`].
pub(super) fn add_missing_tokens(tokenizer: &mut Tokenizer, folder: &Path, config: &Value) -> Result<()> {
    let known = tokenizer.get_added_tokens_decoder();
    let missing = decoder_tokens(config).filter(|(_, token)| !known.values().any(|k| k.content == token.content));
    add_with_ids(tokenizer, folder, missing.collect())
}

/// The tokens of `added_tokens_decoder`, by their ids.
fn decoder_tokens(config: &Value) -> impl Iterator<Item = (u32, AddedToken)> + '_ {
    let entries = config["added_tokens_decoder"].as_object().into_iter().flatten();
    entries.filter_map(|(id, token)| Some((id.parse().ok()?, added_token(token, false)?)))
}

fn add_with_ids(tokenizer: &mut Tokenizer, folder: &Path, tokens: BTreeMap<u32, AddedToken>) -> Result<()> {
    for (id, token) in tokens {
        let name = token.content.clone();
        if token.special {
            tokenizer.add_special_tokens(&[token]);
        } else {
            tokenizer.add_tokens(&[token]);
        }
        let found = tokenizer.token_to_id(&name);
        if found != Some(id) {
            let found = found.map_or_else(|| "none".to_owned(), |id| id.to_string());
            let reason = format!("added token `{name}`: found id {found} after the vocabulary, expected {id}");
            return Err(Error::folder(folder, reason));
        }
    }
    Ok(())
}
