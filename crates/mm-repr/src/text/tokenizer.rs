//! Text → token ids, by the checkpoint's own tokenizer.

use super::sentencepiece;
use crate::{Error, Result};
use mm_core::{Error as CoreError, ProcessContext, Processor, Source, Tensor};
use serde_json::Value;
use std::{
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokenizers::{
    AddedToken, PaddingParams, PaddingStrategy, Tokenizer, TruncationParams,
    models::{bpe::BPE, wordpiece::WordPiece},
    normalizers::{BertNormalizer, Lowercase, NFC, Replace, Sequence as Normalizers},
    pre_tokenizers::{
        bert::BertPreTokenizer,
        byte_level::ByteLevel,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::{bert::BertProcessing, roberta::RobertaProcessing},
    tokenizer::SplitDelimiterBehavior,
};

/// A text → ids `[length]` int64. Texts are cut at the model's longest, and counted when they are.
pub struct TextProcessor {
    tokenizer: Tokenizer,
    padding: i64,
    longest: usize,
    /// Put before each text (sentence-transformers' default prompt).
    prompt: String,
    /// Whether each text is padded to the longest, and the padding counts as text (SigLIP).
    fixed: bool,
    cut: AtomicUsize,
    fingerprint: String,
}

impl TextProcessor {
    /// The tokenizer of a checkpoint folder, cutting at `longest` tokens: `tokenizer.json`, else `vocab.txt` (BERT's kind),
    /// `vocab.json` and `merges.txt` (RoBERTa's and CLIP's), `sentencepiece.bpe.model` (XLM-RoBERTa's) or `spiece.model` (`SigLIP`'s).
    pub fn from_folder(folder: &Path, longest: usize) -> Result<Self> {
        let settings = read_json(&folder.join("tokenizer_config.json"))?;
        let mut tokenizer = load_tokenizer(folder)?;
        tokenizer.with_padding(None);
        let cut = TruncationParams { max_length: longest, ..TruncationParams::default() };
        tokenizer
            .with_truncation(Some(cut))
            .map_err(|e| Error::folder(folder, format!("cannot cut at {longest} tokens: {e}")))?;
        let special = read_json(&folder.join("special_tokens_map.json"))?;
        let named =
            |v: &Value| v["pad_token"].as_str().or_else(|| v["pad_token"]["content"].as_str()).map(ToOwned::to_owned);
        // SigLIP pads with what ends a text; its padding is read.
        let bare = folder.join("spiece.model").exists() && !folder.join("tokenizer.json").exists();
        let usual = if bare { ["</s>", "<pad>"] } else { ["[PAD]", "<pad>"] };
        let token = named(&settings).or_else(|| named(&special));
        let known = |t: &str| tokenizer.token_to_id(t);
        let padding = token.map_or_else(|| usual.into_iter().find_map(known), |t| known(&t)).map_or(0, i64::from);
        let prompts = read_json(&folder.join("config_sentence_transformers.json"))?;
        let prompt = prompts["default_prompt_name"].as_str().and_then(|n| prompts["prompts"][n].as_str()).unwrap_or("");
        // Of the files: to write the tokenizer out anew would print of holes in a vocabulary to standard output.
        let mut hasher = blake3::Hasher::new();
        for name in
            ["tokenizer.json", "vocab.json", "merges.txt", "vocab.txt", "sentencepiece.bpe.model", "spiece.model"]
        {
            hasher.update(&std::fs::read(folder.join(name)).unwrap_or_default()).update(&[0]);
        }
        let fingerprint = format!("text {} {longest} {prompt}", hasher.finalize().to_hex());
        let prompt = prompt.to_owned();
        Ok(Self { tokenizer, padding, longest, prompt, fixed: false, cut: AtomicUsize::new(0), fingerprint })
    }

    /// The same, each text padded to the longest with padding that counts as text.
    pub(crate) fn fixed(mut self) -> Self {
        let pad_id = u32::try_from(self.padding).unwrap_or(0);
        let pad_token = self.tokenizer.id_to_token(pad_id).unwrap_or_default();
        let strategy = PaddingStrategy::Fixed(self.longest);
        self.tokenizer.with_padding(Some(PaddingParams { strategy, pad_id, pad_token, ..PaddingParams::default() }));
        self.fixed = true;
        self
    }

    /// The ids of a text.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>> {
        let text = mm_data::decode::clean_text(text).map_err(CoreError::Sample)?;
        let encoding = self
            .tokenizer
            .encode_fast(format!("{}{text}", self.prompt), true)
            .map_err(|e| CoreError::Sample(format!("cannot be tokenized: {e}")))?;
        if !encoding.get_overflowing().is_empty() {
            self.cut.fetch_add(1, Ordering::Relaxed);
        }
        Ok(encoding.get_ids().iter().map(|id| i64::from(*id)).collect())
    }

    /// Number of entries of its vocabulary, added tokens included: one more than the largest id.
    pub fn entries(&self) -> usize {
        let largest = self.tokenizer.get_vocab(true).values().copied().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// The id of a token, if the vocabulary has it.
    pub fn id(&self, token: &str) -> Option<i64> {
        self.tokenizer.token_to_id(token).map(i64::from)
    }

    /// Most tokens that a text keeps.
    pub fn longest(&self) -> usize {
        self.longest
    }
}

/// The tokenizer of a checkpoint folder, as it is: `tokenizer.json`, else what older layouts have.
pub fn load_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let settings = read_json(&folder.join("tokenizer_config.json"))?;
    let file = folder.join("tokenizer.json");
    let has = |name: &str| folder.join(name).exists();
    let tokenizer = if file.exists() {
        Tokenizer::from_file(&file).map_err(|e| Error::folder(&file, format!("not a tokenizer: {e}")))?
    } else if has("vocab.json") && has("merges.txt") {
        byte_pairs(folder, &settings)?
    } else if has("vocab.txt") {
        word_piece(folder, &settings)?
    } else if has("sentencepiece.bpe.model") {
        sentencepiece::fairseq(&folder.join("sentencepiece.bpe.model"))?
    } else if has("spiece.model") {
        sentencepiece::siglip(&folder.join("spiece.model"), settings["do_lower_case"].as_bool().unwrap_or(true))?
    } else {
        return Err(Error::folder(
            folder,
            "no tokenizer here; wanted tokenizer.json, or vocab.txt, or vocab.json and merges.txt, or a sentencepiece model",
        ));
    };
    Ok(tokenizer)
}

/// A JSON file of a folder; `Null` when it is not there.
pub fn read_json(file: &Path) -> Result<Value> {
    if !file.exists() {
        return Ok(Value::Null);
    }
    let text = std::fs::read_to_string(file).map_err(|e| Error::folder(file, e))?;
    serde_json::from_str(&text).map_err(|e| Error::folder(file, format!("not valid JSON: {e}")))
}

/// BERT's tokenizer from a bare `vocab.txt`.
fn word_piece(folder: &Path, settings: &Value) -> Result<Tokenizer> {
    let file = folder.join("vocab.txt");
    let bad = |e: String| Error::folder(&file, e);
    let lower = settings["do_lower_case"].as_bool().unwrap_or(true);
    let accents = settings["strip_accents"].as_bool();
    let chinese = settings["tokenize_chinese_chars"].as_bool().unwrap_or(true);
    let path = file.to_string_lossy();
    let model = WordPiece::from_file(&path).unk_token("[UNK]".into()).build().map_err(|e| bad(e.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, chinese, accents, lower)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    // MPNet's vocabulary has RoBERTa's words for the ends.
    let id = |tokens: [&str; 2]| {
        let found = tokens.iter().find_map(|t| tokenizer.token_to_id(t).map(|id| ((*t).to_owned(), id)));
        found.ok_or_else(|| bad(format!("lacks {}", tokens.join(" and "))))
    };
    let (cls, sep) = (id(["[CLS]", "<s>"])?, id(["[SEP]", "</s>"])?);
    tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls)));
    Ok(tokenizer)
}

/// RoBERTa's or CLIP's tokenizer from bare `vocab.json` and `merges.txt`.
fn byte_pairs(folder: &Path, settings: &Value) -> Result<Tokenizer> {
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let bad = |e: String| Error::folder(&vocab, e);
    let builder = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy());
    let entries = read_json(&vocab)?;
    let clip = !entries["<|startoftext|>"].is_null();
    let (bos, eos) = if clip { ("<|startoftext|>", "<|endoftext|>") } else { ("<s>", "</s>") };
    let id = |token: &str| {
        let found = entries[token].as_u64().and_then(|id| u32::try_from(id).ok());
        found.map(|id| (token.to_owned(), id)).ok_or_else(|| bad(format!("lacks {token}")))
    };
    let (bos, eos) = (id(bos)?, id(eos)?);
    let prefix = settings["add_prefix_space"].as_bool().unwrap_or(false);
    let mut tokenizer = if clip {
        let model = builder.end_of_word_suffix("</w>".into()).unk_token(eos.0.clone()).build();
        let mut tokenizer = Tokenizer::new(model.map_err(|e| bad(e.to_string()))?);
        let spaces = Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".into()), " ");
        let spaces = spaces.map_err(|e| bad(e.to_string()))?;
        tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])));
        let words = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";
        let split = Split::new(SplitPattern::Regex(words.into()), SplitDelimiterBehavior::Removed, true);
        let split = split.map_err(|e| bad(e.to_string()))?;
        tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![split.into(), ByteLevel::new(false, true, true).into()])));
        tokenizer
    } else {
        let mut tokenizer = Tokenizer::new(builder.build().map_err(|e| bad(e.to_string()))?);
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix, true, true)));
        tokenizer
    };
    let special: Vec<AddedToken> = [bos.0.as_str(), eos.0.as_str(), "<pad>", "<unk>", "<mask>"]
        .into_iter()
        .filter(|t| !entries[*t].is_null())
        .map(|t| AddedToken::from(t, true).lstrip(t == "<mask>"))
        .collect();
    tokenizer.add_special_tokens(&special);
    let ends = RobertaProcessing::new(eos, bos).add_prefix_space(prefix).trim_offsets(!clip);
    tokenizer.with_post_processor(Some(ends));
    Ok(tokenizer)
}

impl Processor for TextProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor, CoreError> {
        Tensor::from_slice(&self.ids(&super::read(source)?)?)
    }

    fn pad_value(&self) -> f64 {
        self.padding as f64
    }

    fn is_sequence(&self) -> bool {
        !self.fixed
    }

    fn token_names(&self, source: &Source) -> Result<Vec<String>, CoreError> {
        let name = |id: i64| u32::try_from(id).ok().and_then(|id| self.tokenizer.id_to_token(id)).unwrap_or_default();
        // Marks of where words begin and end belong to the vocabulary, not to the words.
        let plain = |token: String| token.replace(['Ġ', '▁'], "").replace("</w>", "");
        Ok(self.ids(&super::read(source)?)?.into_iter().map(|id| plain(name(id))).collect())
    }

    fn truncated(&self) -> Option<(usize, String)> {
        let count = self.cut.load(Ordering::Relaxed);
        (count > 0).then(|| (count, format!("{} tokens", self.longest)))
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
