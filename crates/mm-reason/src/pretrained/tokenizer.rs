//! A checkpoint's tokenizer in both directions, with its special tokens and chat template.

use super::chat_template;
use crate::{Error, Result};
use mm_data::catching_panics;
use mm_repr::{read_json, text::load_tokenizer};
use serde_json::Value;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

/// Text ↔ token ids.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    config: Value,
    special_tokens_map: Value,
    clean_up_spaces: bool,
    chat_template: Option<String>,
    folder: PathBuf,
}

impl Tokenizer {
    /// Loads the tokenizer of a checkpoint folder.
    ///
    /// # Errors
    /// If the folder has none, or one that cannot be parsed.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with_template(folder, folder)
    }

    /// Like [`Self::open`], but with the chat template of `files` where the folder (an adapter's) has none.
    pub(crate) fn open_with_template(folder: &Path, files: &Path) -> Result<Self> {
        let mut tokenizer = load_tokenizer(folder)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| Error::checkpoint(folder, e))?;
        let config = read_json(&folder.join("tokenizer_config.json"))?;
        Ok(Self {
            inner: tokenizer,
            special_tokens_map: read_json(&folder.join("special_tokens_map.json"))?,
            clean_up_spaces: config["clean_up_tokenization_spaces"].as_bool().unwrap_or(false),
            chat_template: match chat_template::find(folder, &config)? {
                Some(template) => Some(template),
                None => chat_template::find(files, &read_json(&files.join("tokenizer_config.json"))?)?,
            },
            config,
            folder: folder.to_owned(),
        })
    }

    /// Token ids of a text; `add_special_tokens` adds those that the tokenizer puts around a text.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<i64>> {
        let encode = || self.inner.encode_fast(text, add_special_tokens);
        let encoding = catching_panics(encode)
            .map_err(|e| Error::checkpoint(&self.folder, e))?
            .map_err(|e| Error::invalid_argument("text", text, format!("one that can be tokenized: {e}")))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// Text of token ids, without special tokens.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        let text = catching_panics(|| self.inner.decode(&ids, true))
            .map_err(|e| Error::checkpoint(&self.folder, e))?
            .map_err(|e| Error::checkpoint(&self.folder, e))?;
        if !self.clean_up_spaces {
            return Ok(text);
        }
        // transformers' clean_up_tokenization.
        let replacements = [
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
        Ok(replacements.iter().fold(text, |text, (from, to)| text.replace(from, to)))
    }

    /// The bytes that each of the first `count` tokens adds to a text. Special tokens start with 0xFF, which no text
    /// has.
    pub(crate) fn token_bytes(&self, count: usize) -> Result<Vec<Vec<u8>>> {
        let json: Value = self
            .inner
            .to_string(false)
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok())
            .ok_or_else(|| Error::checkpoint(&self.folder, "the tokenizer cannot be written as JSON"))?;
        let decoder = json["decoder"].to_string();
        let (byte_level, word_piece) = (decoder.contains("ByteLevel"), decoder.contains("WordPiece"));
        let byte_of = gpt2_byte_decoder();
        let special = self.inner.get_added_tokens_decoder();
        let bytes = |id: usize| {
            let id = id as u32;
            let Some(token) = self.inner.id_to_token(id) else { return vec![0xFF] };
            if special.contains_key(&id) {
                return [&[0xFF], token.as_bytes()].concat();
            }
            if byte_level {
                return token.chars().filter_map(|c| byte_of.get(&c).copied()).collect();
            }
            if json["decoder"].is_null() {
                // Without a decoder, tokens are joined with spaces.
                return format!(" {token}").into_bytes();
            }
            if word_piece {
                let continuation = token.strip_prefix("##").map(|t| t.as_bytes().to_vec());
                return continuation.unwrap_or_else(|| format!(" {token}").into_bytes());
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
        self.inner.token_to_id(token).map(i64::from)
    }

    /// The token with an id.
    pub fn id_to_token(&self, id: i64) -> Option<String> {
        self.inner.id_to_token(u32::try_from(id).ok()?)
    }

    /// The id of a special token by its role (`cls_token`, `sep_token`, `bos_token` …).
    pub fn special_token_id(&self, role: &str) -> Option<i64> {
        self.special_token(role).and_then(|token| self.token_to_id(&token))
    }

    fn special_token(&self, role: &str) -> Option<String> {
        let token = |v: &Value| v[role].as_str().or_else(|| v[role]["content"].as_str()).map(ToOwned::to_owned);
        token(&self.config).or_else(|| token(&self.special_tokens_map))
    }

    /// Whether the checkpoint has a chat template.
    pub fn has_chat_template(&self) -> bool {
        self.chat_template.is_some()
    }

    /// A conversation as the checkpoint's chat template renders it, up to the start of the model's turn.
    ///
    /// # Errors
    /// If the checkpoint has no chat template, or the template fails.
    pub fn apply_chat_template(&self, messages: &Value) -> Result<String> {
        let Some(template) = &self.chat_template else {
            let reason = "found no chat template; expected chat_template.jinja or chat_template.json";
            return Err(Error::checkpoint(&self.folder, reason));
        };
        let special = |role: &str| self.special_token(role).unwrap_or_default();
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        catching_panics(|| chat_template::render(template, messages, &bos, &eos))
            .map_err(|e| Error::checkpoint(&self.folder, format!("chat template: {e}")))?
            .map_err(|e| Error::checkpoint(&self.folder, format!("chat template: {e}")))
    }
}

/// The byte of each character that GPT-2's tokenizer represents bytes with: itself where it is printable, else a
/// character from U+0100 on.
fn gpt2_byte_decoder() -> HashMap<char, u8> {
    let mut decoder = HashMap::new();
    let mut next = 256u32;
    for byte in 0..=255u8 {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let character = if printable { u32::from(byte) } else { next };
        next += u32::from(!printable);
        decoder.extend(char::from_u32(character).map(|c| (c, byte)));
    }
    decoder
}
