//! Text → token ids, by the checkpoint's own tokenizer.

use crate::{Error, Result};
use mm_core::{Error as CoreError, Processor, SampleContext, Source, Tensor};
use std::path::Path;
use tokenizers::{
    Tokenizer, TruncationParams, models::wordpiece::WordPiece, normalizers::BertNormalizer,
    pre_tokenizers::bert::BertPreTokenizer, processors::bert::BertProcessing,
};

/// A text → ids `[length]` int64. Texts are cut at the model's longest.
pub struct TextProcessor {
    tokenizer: Tokenizer,
    padding: i64,
    longest: usize,
    fingerprint: String,
}

impl TextProcessor {
    /// The tokenizer of a checkpoint folder (`tokenizer.json`, else `vocab.txt`), cutting at `longest` tokens.
    pub fn from_folder(folder: &Path, longest: usize) -> Result<Self> {
        let file = folder.join("tokenizer.json");
        let mut tokenizer = if file.exists() {
            Tokenizer::from_file(&file).map_err(|e| Error::folder(&file, format!("not a tokenizer: {e}")))?
        } else if folder.join("vocab.txt").exists() {
            word_piece(folder)?
        } else {
            return Err(Error::folder(folder, "neither tokenizer.json nor vocab.txt here"));
        };
        tokenizer.with_padding(None);
        let cut = TruncationParams { max_length: longest, ..TruncationParams::default() };
        tokenizer
            .with_truncation(Some(cut))
            .map_err(|e| Error::folder(folder, format!("cannot cut at {longest} tokens: {e}")))?;
        let settings = json(&folder.join("tokenizer_config.json"))?;
        let token = settings["pad_token"]
            .as_str()
            .or_else(|| settings["pad_token"]["content"].as_str())
            .unwrap_or("[PAD]")
            .to_owned();
        let padding = tokenizer.token_to_id(&token).map_or(0, i64::from);
        let whole = tokenizer.to_string(false).map_err(|e| Error::folder(folder, e))?;
        let fingerprint = format!("text {} {longest}", blake3::hash(whole.as_bytes()).to_hex());
        Ok(Self { tokenizer, padding, longest, fingerprint })
    }

    /// The ids of a text.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>> {
        let text = mm_data::decode::clean_text(text).map_err(CoreError::Sample)?;
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|e| CoreError::Sample(format!("cannot be tokenized: {e}")))?;
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// Number of entries of its vocabulary, added tokens included.
    pub fn entries(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// Most tokens that a text keeps.
    pub fn longest(&self) -> usize {
        self.longest
    }
}

/// A JSON file of a folder; `Null` when it is not there.
pub(crate) fn json(file: &Path) -> Result<serde_json::Value> {
    if !file.exists() {
        return Ok(serde_json::Value::Null);
    }
    let text = std::fs::read_to_string(file).map_err(|e| Error::folder(file, e))?;
    serde_json::from_str(&text).map_err(|e| Error::folder(file, format!("not valid JSON: {e}")))
}

/// BERT's tokenizer from a bare `vocab.txt`.
fn word_piece(folder: &Path) -> Result<Tokenizer> {
    let file = folder.join("vocab.txt");
    let bad = |e: String| Error::folder(&file, e);
    let settings = json(&folder.join("tokenizer_config.json"))?;
    let lower = settings["do_lower_case"].as_bool().unwrap_or(true);
    let accents = settings["strip_accents"].as_bool();
    let chinese = settings["tokenize_chinese_chars"].as_bool().unwrap_or(true);
    let path = file.to_string_lossy();
    let model = WordPiece::from_file(&path).unk_token("[UNK]".into()).build().map_err(|e| bad(e.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, chinese, accents, lower)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let id = |token: &str| tokenizer.token_to_id(token).ok_or_else(|| bad(format!("lacks {token}")));
    let (cls, sep) = (id("[CLS]")?, id("[SEP]")?);
    tokenizer.with_post_processor(Some(BertProcessing::new(("[SEP]".into(), sep), ("[CLS]".into(), cls))));
    Ok(tokenizer)
}

impl Processor for TextProcessor {
    fn process(&self, source: &Source, _context: &mut SampleContext) -> Result<Tensor, CoreError> {
        let ids = match source {
            Source::Text(text) => self.ids(text)?,
            Source::File(path) => self.ids(&mm_data::decode::read_text(path, None)?)?,
            Source::Value(value) => return Err(CoreError::Sample(format!("found {value}, wanted a text"))),
        };
        Tensor::from_slice(&ids)
    }

    fn padding(&self) -> f64 {
        self.padding as f64
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
