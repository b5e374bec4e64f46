//! Tokenizing text with a checkpoint's own tokenizer.

use super::{
    added_tokens::{add_missing_tokens, add_tokens},
    prompts::Prompts,
    sentencepiece,
    source::read_text,
    vocab_files::{byte_pair_tokenizer, word_piece_tokenizer},
};
use crate::{Error, Result, json::read_json};
use mm_core::{Error as CoreError, ProcessContext, Processor, Source, Tensor};
use serde_json::Value;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokenizers::{
    PaddingParams, PaddingStrategy, Tokenizer, TruncationParams,
    normalizers::{Lowercase, Sequence as Normalizers},
};

const TOKENIZER_FILES: [&str; 9] = [
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];

/// A text → token ids `[length]`, int64. Texts longer than the model's limit are truncated, and counted.
///
/// A text is tokenized as it is written: it is normalized (Unicode's NFC or NFKC, lower case, accents) where the
/// checkpoint's own files say so and nowhere else, so that a decomposed `é` may have other tokens than a composed one.
pub struct TextProcessor {
    tokenizer: Arc<Tokenizer>,
    pad_id: i64,
    max_length: usize,
    /// Prepended to each text (sentence-transformers' default prompt, unless another was chosen).
    prompt: String,
    /// The prompts to choose among.
    prompts: Prompts,
    /// Whether all texts are padded to the limit and the padding is not masked (SigLIP).
    fixed_length: bool,
    num_truncated: AtomicUsize,
    /// Of everything but the prompt.
    fingerprint: String,
}

impl TextProcessor {
    /// The tokenizer of a checkpoint folder, truncating at `max_length` tokens: `tokenizer.json`, else `vocab.txt`
    /// (BERT), `vocab.json` and `merges.txt` (RoBERTa, CLIP), `sentencepiece.bpe.model` (XLM-RoBERTa) or `spiece.model`
    /// (SigLIP).
    ///
    /// # Errors
    /// If none of these files exists, or one is invalid.
    pub fn from_folder(folder: &Path, max_length: usize) -> Result<Self> {
        Self::from_folders(folder, folder, max_length)
    }

    /// Like [`Self::from_folder`], but with the tokenizer of another folder (an adapter's).
    pub(crate) fn from_folders(files: &Path, folder: &Path, max_length: usize) -> Result<Self> {
        let mut tokenizer = load_tokenizer(folder)?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length, ..TruncationParams::default() };
        tokenizer
            .with_truncation(Some(truncation))
            .map_err(|e| Error::folder(folder, format!("cannot truncate at {max_length} tokens: {e}")))?;
        let pad_id = pad_id(folder, &tokenizer)?;
        let prompts = Prompts::read(files)?;
        let lower_case = read_json(&files.join("sentence_bert_config.json"))?["do_lower_case"] == true;
        if lower_case {
            // Before the tokenizer's own normalization, and not for special tokens, as sentence-transformers does.
            let own = tokenizer.get_normalizer().cloned();
            tokenizer.with_normalizer(Some(Normalizers::new([Lowercase.into()].into_iter().chain(own).collect())));
        }
        // The files are hashed, since serializing the tokenizer prints gaps in its vocabulary to standard output.
        let mut hasher = blake3::Hasher::new();
        for name in TOKENIZER_FILES {
            hasher.update(&std::fs::read(folder.join(name)).unwrap_or_default()).update(&[0]);
        }
        Ok(Self {
            fingerprint: format!("text {} {max_length} {lower_case}", hasher.finalize().to_hex()),
            prompt: prompts.default_text().to_owned(),
            prompts,
            tokenizer: Arc::new(tokenizer),
            pad_id,
            max_length,
            fixed_length: false,
            num_truncated: AtomicUsize::new(0),
        })
    }

    /// The tokenizer, which truncates single texts.
    pub(super) fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// What is prepended to each text.
    pub(super) fn prompt(&self) -> &str {
        &self.prompt
    }

    /// Pads all texts to the limit; the padding is not masked.
    pub(crate) fn pad_to_max_length(mut self) -> Self {
        let pad_id = u32::try_from(self.pad_id).unwrap_or(0);
        let pad_token = self.tokenizer.id_to_token(pad_id).unwrap_or_default();
        let strategy = PaddingStrategy::Fixed(self.max_length);
        let padding = PaddingParams { strategy, pad_id, pad_token, ..PaddingParams::default() };
        Arc::make_mut(&mut self.tokenizer).with_padding(Some(padding));
        self.fixed_length = true;
        self
    }

    /// One for each of the folder's prompts, by name: they share the tokenizer, and count what they truncate alone.
    pub(super) fn with_each_prompt(&self) -> Vec<(String, Self)> {
        let with_prompt = |(name, prompt): (&String, &String)| {
            let processor = Self {
                tokenizer: self.tokenizer.clone(),
                prompt: prompt.clone(),
                prompts: self.prompts.clone(),
                num_truncated: AtomicUsize::new(0),
                fingerprint: self.fingerprint.clone(),
                ..*self
            };
            (name.clone(), processor)
        };
        self.prompts.texts.iter().map(with_prompt).collect()
    }

    /// Token ids of a text.
    ///
    /// # Errors
    /// If the text exceeds the size limit of a text, or cannot be tokenized.
    pub fn encode(&self, text: &str) -> Result<Vec<i64>> {
        mm_data::decode::check_text_size(text).map_err(CoreError::Sample)?;
        let cannot = |e: tokenizers::Error| CoreError::Sample(format!("cannot be tokenized: {e}"));
        let encoding = self.tokenizer.encode_fast(format!("{}{text}", self.prompt), true).map_err(cannot)?;
        if !encoding.get_overflowing().is_empty() {
            self.num_truncated.fetch_add(1, Ordering::Relaxed);
            mm_data::note_truncated(self.limit());
        }
        let ids = encoding.get_ids();
        if ids.len() > self.max_length {
            let (found, expected) = (ids.len(), self.max_length);
            let reason = "the tokenizer's template repeats the text, which mm does not support";
            let text = format!("found {found} tokens, expected at most {expected}: {reason}");
            return Err(CoreError::Sample(text).into());
        }
        Ok(ids.iter().map(|id| i64::from(*id)).collect())
    }

    fn limit(&self) -> String {
        format!("{} tokens", self.max_length)
    }

    /// Number of tokens at the start of each text that belong to the prompt, the start token included; 0
    /// without a prompt.
    ///
    /// # Errors
    /// If the prompt cannot be tokenized.
    pub fn prompt_length(&self) -> Result<usize> {
        if self.prompt.is_empty() {
            return Ok(0);
        }
        let ids = self.encode("")?;
        // sentence-transformers does not count a special token at the end.
        let added = self.tokenizer.get_added_tokens_decoder();
        let is_special = |id: &i64| u32::try_from(*id).is_ok_and(|id| added.get(&id).is_some_and(|t| t.special));
        Ok(ids.len() - usize::from(ids.last().is_some_and(is_special)))
    }

    /// Size of the vocabulary with added tokens: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        let largest = self.tokenizer.get_vocab(true).values().copied().max();
        largest.map_or(0, |id| id as usize + 1)
    }

    /// The id of a token, if it is in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<i64> {
        self.tokenizer.token_to_id(token).map(i64::from)
    }

    /// Maximum number of tokens.
    pub fn max_length(&self) -> usize {
        self.max_length
    }
}

/// The padding token of the folder's configs, else the usual one of its tokenizer; 0 if it has none.
fn pad_id(folder: &Path, tokenizer: &Tokenizer) -> Result<i64> {
    let pad_token =
        |v: &Value| v["pad_token"].as_str().or_else(|| v["pad_token"]["content"].as_str()).map(ToOwned::to_owned);
    let config = read_json(&folder.join("tokenizer_config.json"))?;
    let special = read_json(&folder.join("special_tokens_map.json"))?;
    // SigLIP pads with the end token.
    let is_siglip = folder.join("spiece.model").exists() && !folder.join("tokenizer.json").exists();
    let defaults = if is_siglip { ["</s>", "<pad>"] } else { ["[PAD]", "<pad>"] };
    let id = match pad_token(&config).or_else(|| pad_token(&special)) {
        Some(token) => tokenizer.token_to_id(&token),
        None => defaults.into_iter().find_map(|t| tokenizer.token_to_id(t)),
    };
    Ok(id.map_or(0, i64::from))
}

/// The tokenizer of a checkpoint folder, without truncation or padding of ours: `tokenizer.json`, else the files of
/// older layouts, with the tokens that the folder adds to them.
///
/// # Errors
/// If there is no tokenizer, or its files are invalid.
pub fn load_tokenizer(folder: &Path) -> Result<Tokenizer> {
    mm_data::catching_panics(|| read_tokenizer(folder)).unwrap_or_else(|e| Err(Error::folder(folder, e)))
}

fn read_tokenizer(folder: &Path) -> Result<Tokenizer> {
    let config = read_json(&folder.join("tokenizer_config.json"))?;
    let file = folder.join("tokenizer.json");
    let has = |name: &str| folder.join(name).exists();
    if file.exists() {
        let mut tokenizer =
            Tokenizer::from_file(&file).map_err(|e| Error::folder(&file, format!("not a tokenizer: {e}")))?;
        add_missing_tokens(&mut tokenizer, folder, &config)?;
        Ok(tokenizer)
    } else if has("vocab.json") && has("merges.txt") {
        byte_pair_tokenizer(folder, &config)
    } else if has("vocab.txt") {
        word_piece_tokenizer(folder, &config)
    } else if has("sentencepiece.bpe.model") {
        if read_json(&folder.join("config.json"))?["model_type"] == "camembert" {
            let reason = "found sentencepiece.bpe.model alone, whose ids CamemBERT assigns in its own way; expected \
                          tokenizer.json, which transformers' AutoTokenizer saves";
            return Err(Error::folder(folder, reason));
        }
        let mut tokenizer = sentencepiece::xlm_roberta_tokenizer(&folder.join("sentencepiece.bpe.model"))?;
        add_tokens(&mut tokenizer, folder, &[])?;
        Ok(tokenizer)
    } else if has("spiece.model") {
        let lower_case = config["do_lower_case"].as_bool().unwrap_or(true);
        let mut tokenizer = sentencepiece::siglip_tokenizer(&folder.join("spiece.model"), lower_case)?;
        add_tokens(&mut tokenizer, folder, &[])?;
        Ok(tokenizer)
    } else {
        Err(Error::folder(
            folder,
            "no tokenizer here; expected tokenizer.json, or vocab.txt, or vocab.json and merges.txt, or a sentencepiece model",
        ))
    }
}

impl Processor for TextProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor, CoreError> {
        Tensor::from_slice(&self.encode(&read_text(source)?)?)
    }

    fn pad_value(&self) -> f64 {
        self.pad_id as f64
    }

    fn is_sequence(&self) -> bool {
        !self.fixed_length
    }

    fn token_names(&self, source: &Source) -> Result<Vec<String>, CoreError> {
        let token = |id: i64| u32::try_from(id).ok().and_then(|id| self.tokenizer.id_to_token(id)).unwrap_or_default();
        // Without the vocabulary's marks of word boundaries.
        let plain = |token: String| token.replace(['Ġ', '▁'], "").replace("</w>", "");
        Ok(self.encode(&read_text(source)?)?.into_iter().map(|id| plain(token(id))).collect())
    }

    fn truncated(&self) -> Option<(usize, String)> {
        let count = self.num_truncated.load(Ordering::Relaxed);
        (count > 0).then(|| (count, self.limit()))
    }

    fn fingerprint(&self) -> String {
        format!("{} {}", self.fingerprint, self.prompt)
    }
}
