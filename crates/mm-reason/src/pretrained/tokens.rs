//! A folder's tokenizer both ways, its special tokens, and its chat template.

use crate::{Error, Result};
use mm_repr::text::{load_tokenizer, read_json};
use serde_json::Value;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};
use tokenizers::Tokenizer as HfTokenizer;

/// Text ↔ token ids.
pub struct Tokenizer {
    tokenizer: HfTokenizer,
    settings: Value,
    special: Value,
    clean: bool,
    template: Option<String>,
    folder: PathBuf,
}

impl Tokenizer {
    /// Of a checkpoint folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut tokenizer = load_tokenizer(folder)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| Error::checkpoint(folder, e))?;
        let settings = read_json(&folder.join("tokenizer_config.json"))?;
        let special = read_json(&folder.join("special_tokens_map.json"))?;
        let clean = settings["clean_up_tokenization_spaces"].as_bool().unwrap_or(false);
        let template = template(folder, &settings)?;
        Ok(Self { tokenizer, settings, special, clean, template, folder: folder.to_owned() })
    }

    /// The ids of a text; `ends` asks for the tokens that the tokenizer puts around it.
    pub fn encode(&self, text: &str, ends: bool) -> Result<Vec<i64>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, ends)
            .map_err(|e| Error::invalid_argument("text", text, format!("one that can be tokenized: {e}")))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// The text of ids, without special tokens.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        self.text(ids, true)
    }

    /// The text of ids, special tokens too if so wished.
    pub fn text(&self, ids: &[i64], skip_special: bool) -> Result<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        let text = self.tokenizer.decode(&ids, skip_special).map_err(|e| Error::checkpoint(&self.folder, e))?;
        if !self.clean {
            return Ok(text);
        }
        // What transformers' clean_up_tokenization does.
        let pairs = [
            (" .", "."),
            (" ?", "?"),
            (" !", "!"),
            (" ,", ","),
            (" ' ", "'"),
            (" n't", "n't"),
            (" 'm", "'m"),
            (" 's", "'s"),
            (" 've", "'ve"),
            (" 're", "'re"),
        ];
        Ok(pairs.iter().fold(text, |t, (from, to)| t.replace(from, to)))
    }

    /// What each of so many tokens adds to a text, as bytes; special ones after a byte that no text has (0xFF).
    pub(crate) fn bytes(&self, count: usize) -> Result<Vec<Vec<u8>>> {
        let told: Value = self
            .tokenizer
            .to_string(false)
            .ok()
            .and_then(|t| serde_json::from_str(&t).ok())
            .ok_or_else(|| Error::checkpoint(&self.folder, "a tokenizer that cannot be written as JSON"))?;
        let decoder = told["decoder"].to_string();
        let (levels, pieces) = (decoder.contains("ByteLevel"), decoder.contains("WordPiece"));
        // GPT-2's letters for bytes that are none.
        let mut letters: HashMap<char, u8> = HashMap::new();
        let mut next = 256u32;
        for byte in 0..=255u8 {
            let shown = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
            let letter = if shown { u32::from(byte) } else { next };
            next += u32::from(!shown);
            letters.extend(char::from_u32(letter).map(|c| (c, byte)));
        }
        let special = self.tokenizer.get_added_tokens_decoder();
        let bytes = |id: usize| {
            let id = id as u32;
            let Some(token) = self.tokenizer.id_to_token(id) else { return vec![0xFF] };
            if special.contains_key(&id) {
                return [&[0xFF], token.as_bytes()].concat();
            }
            if levels {
                return token.chars().filter_map(|c| letters.get(&c).copied()).collect();
            }
            if told["decoder"].is_null() {
                // Tokenizer are then written with spaces between them.
                return format!(" {token}").into_bytes();
            }
            if pieces {
                let inside = token.strip_prefix("##").map(|t| t.as_bytes().to_vec());
                return inside.unwrap_or_else(|| format!(" {token}").into_bytes());
            }
            let hex = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
            if let Some(byte) = hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
                return vec![byte];
            }
            token.replace('\u{2581}', " ").replace("</w>", " ").into_bytes()
        };
        Ok((0..count).map(bytes).collect())
    }

    /// The id of a token of the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<i64> {
        self.tokenizer.token_to_id(token).map(i64::from)
    }

    /// The token of an id.
    pub fn id_to_token(&self, id: i64) -> Option<String> {
        self.tokenizer.id_to_token(u32::try_from(id).ok()?)
    }

    /// The id of a token that the folder names (`cls_token`, `sep_token`, `bos_token` …).
    pub fn special_token_id(&self, name: &str) -> Option<i64> {
        self.name(name).and_then(|t| self.token_to_id(&t))
    }

    fn name(&self, name: &str) -> Option<String> {
        let of = |v: &Value| v[name].as_str().or_else(|| v[name]["content"].as_str()).map(ToOwned::to_owned);
        of(&self.settings).or_else(|| of(&self.special))
    }

    /// Whether the folder has a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.template.is_some()
    }

    /// A conversation as the folder's chat template writes it, up to where the model's turn begins.
    pub fn apply_chat_template(&self, messages: &Value) -> Result<String> {
        let Some(template) = &self.template else {
            let wanted = "a folder with chat_template.jinja or chat_template.json";
            return Err(Error::checkpoint(&self.folder, format!("has no chat template; wanted {wanted}")));
        };
        let mut environment = minijinja::Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        // A template that loops without end is stopped.
        environment.set_fuel(Some(10_000_000));
        environment.set_unknown_method_callback(methods);
        environment.add_function("raise_exception", |text: String| -> Result<String, minijinja::Error> {
            Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, text))
        });
        environment.add_function("strftime_now", |_format: String| String::from("26 Jul 2024"));
        let bad = |e: minijinja::Error| Error::checkpoint(&self.folder, format!("chat template: {e:#}"));
        environment.add_template("chat", template).map_err(bad)?;
        let context = minijinja::context! {
            messages => minijinja::Value::from_serialize(messages),
            add_generation_prompt => true,
            add_vision_id => false,
            bos_token => self.name("bos_token").unwrap_or_default(),
            eos_token => self.name("eos_token").unwrap_or_default(),
        };
        environment.get_template("chat").and_then(|t| t.render(context)).map_err(bad)
    }
}

/// Python's methods of strings that templates use.
fn methods(
    _: &minijinja::State<'_, '_>,
    value: &minijinja::Value,
    name: &str,
    arguments: &[minijinja::Value],
) -> Result<minijinja::Value, minijinja::Error> {
    use minijinja::{Error as E, ErrorKind, Value};
    let unknown = || E::new(ErrorKind::UnknownMethod, format!("`{name}` is not read in chat templates"));
    if let Some(text) = value.as_str() {
        let argument = |n: usize| arguments.get(n).and_then(|a| a.as_str().map(ToOwned::to_owned));
        let chars = argument(0);
        let among = |c: char| chars.as_ref().map_or(c.is_whitespace(), |s| s.contains(c));
        return Ok(match name {
            "strip" => Value::from(text.trim_matches(among)),
            "lstrip" => Value::from(text.trim_start_matches(among)),
            "rstrip" => Value::from(text.trim_end_matches(among)),
            "upper" => Value::from(text.to_uppercase()),
            "lower" => Value::from(text.to_lowercase()),
            "title" | "capitalize" => {
                let mut letters = text.chars();
                let first: String = letters.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
                Value::from(first + &letters.as_str().to_lowercase())
            }
            "startswith" => Value::from(argument(0).is_some_and(|a| text.starts_with(&a))),
            "endswith" => Value::from(argument(0).is_some_and(|a| text.ends_with(&a))),
            "replace" => Value::from(text.replace(&argument(0).unwrap_or_default(), &argument(1).unwrap_or_default())),
            "split" => match argument(0) {
                Some(by) if !by.is_empty() => text.split(by.as_str()).collect::<Value>(),
                _ => text.split_whitespace().collect::<Value>(),
            },
            _ => return Err(unknown()),
        });
    }
    match name {
        "items" => Ok(value
            .try_iter()?
            .map(|key| Value::from(vec![key.clone(), value.get_item(&key).unwrap_or_default()]))
            .collect()),
        "keys" => Ok(value.try_iter()?.collect()),
        "get" => {
            let Some(key) = arguments.first() else { return Err(unknown()) };
            let found = value.get_item(key)?;
            Ok(if found.is_undefined() { arguments.get(1).cloned().unwrap_or(Value::from(())) } else { found })
        }
        _ => Err(unknown()),
    }
}

/// The chat template where folders keep it.
fn template(folder: &Path, settings: &Value) -> Result<Option<String>> {
    let file = folder.join("chat_template.jinja");
    if file.exists() {
        return std::fs::read_to_string(&file).map(Some).map_err(|e| Error::checkpoint(&file, e));
    }
    for name in ["chat_template.json", "processor_config.json"] {
        if let Some(text) = read_json(&folder.join(name))?["chat_template"].as_str() {
            return Ok(Some(text.to_owned()));
        }
    }
    Ok(match &settings["chat_template"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let named = |name: &str| list.iter().find(|t| t["name"] == name);
            named("default").or(list.first()).and_then(|t| t["template"].as_str()).map(ToOwned::to_owned)
        }
        _ => None,
    })
}
