//! Tokenizers from bare vocabulary files, as transformers' slow tokenizers read them.

use super::added_tokens::{SpecialTokens, add_tokens};
use crate::{Error, Result, json::read_json};
use serde_json::Value;
use std::path::Path;
use tokenizers::{
    Tokenizer,
    models::{bpe::BPE, wordpiece::WordPiece},
    normalizers::{BertNormalizer, Lowercase, NFC, Replace, Sequence as Normalizers, replace::ReplacePattern},
    pre_tokenizers::{
        bert::BertPreTokenizer,
        byte_level::ByteLevel,
        sequence::Sequence as PreTokenizers,
        split::{Split, SplitPattern},
    },
    processors::{bert::BertProcessing, roberta::RobertaProcessing},
    tokenizer::SplitDelimiterBehavior,
};

/// CLIP's regular expression for words.
const CLIP_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// Special tokens of BERT, and of MPNet, whose vocabulary has RoBERTa's start and end tokens.
const BERT_SPECIAL: [&str; 5] = ["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"];
const MPNET_SPECIAL: [&str; 5] = ["[UNK]", "</s>", "<pad>", "<s>", "<mask>"];

/// BERT's tokenizer from `vocab.txt`.
pub(super) fn word_piece_tokenizer(folder: &Path, config: &Value) -> Result<Tokenizer> {
    let file = folder.join("vocab.txt");
    let invalid = |e: String| Error::folder(&file, e);
    let lower_case = config["do_lower_case"].as_bool().unwrap_or(true);
    let strip_accents = config["strip_accents"].as_bool();
    let split_chinese = config["tokenize_chinese_chars"].as_bool().unwrap_or(true);
    let special = SpecialTokens::open(folder)?;
    let role = |role: &str| special.role(role).map(|token| token.content);
    let path = file.to_string_lossy();
    let unk_token = role("unk_token").unwrap_or_else(|| "[UNK]".into());
    let model = WordPiece::from_file(&path).unk_token(unk_token).build().map_err(|e| invalid(e.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_normalizer(Some(BertNormalizer::new(true, split_chinese, strip_accents, lower_case)));
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    let is_bert = tokenizer.token_to_id("[CLS]").is_some();
    add_tokens(&mut tokenizer, folder, if is_bert { &BERT_SPECIAL } else { &MPNET_SPECIAL })?;
    let first_known = |tokens: [Option<String>; 3]| {
        let found = tokens.iter().flatten().find_map(|t| tokenizer.token_to_id(t).map(|id| (t.clone(), id)));
        let names: Vec<&str> = tokens.iter().flatten().map(String::as_str).collect();
        found.ok_or_else(|| invalid(format!("lacks {}", names.join(" and "))))
    };
    let cls = first_known([role("cls_token"), Some("[CLS]".into()), Some("<s>".into())])?;
    let sep = first_known([role("sep_token"), Some("[SEP]".into()), Some("</s>".into())])?;
    tokenizer.with_post_processor(Some(BertProcessing::new(sep, cls)));
    Ok(tokenizer)
}

/// RoBERTa's or CLIP's tokenizer from `vocab.json` and `merges.txt`.
pub(super) fn byte_pair_tokenizer(folder: &Path, config: &Value) -> Result<Tokenizer> {
    let (vocab, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
    let invalid = |e: String| Error::folder(&vocab, e);
    let entries = read_json(&vocab)?;
    let is_clip = !entries["<|startoftext|>"].is_null();
    let (bos, eos) = if is_clip { ("<|startoftext|>", "<|endoftext|>") } else { ("<s>", "</s>") };
    let with_id = |token: &str| {
        let found = entries[token].as_u64().and_then(|id| u32::try_from(id).ok());
        found.map(|id| (token.to_owned(), id)).ok_or_else(|| invalid(format!("lacks {token}")))
    };
    let (bos, eos) = (with_id(bos)?, with_id(eos)?);
    let add_prefix_space = config["add_prefix_space"].as_bool().unwrap_or(false);
    let bpe = BPE::from_file(&vocab.to_string_lossy(), &merges.to_string_lossy());
    let mut tokenizer = if is_clip {
        let model = bpe.end_of_word_suffix("</w>".into()).unk_token(eos.0.clone()).build();
        clip_tokenizer(model.map_err(|e| invalid(e.to_string()))?).map_err(|e| invalid(e.to_string()))?
    } else {
        let mut tokenizer = Tokenizer::new(bpe.build().map_err(|e| invalid(e.to_string()))?);
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(add_prefix_space, true, true)));
        tokenizer
    };
    add_tokens(&mut tokenizer, folder, &[bos.0.as_str(), eos.0.as_str(), "<pad>", "<unk>", "<mask>"])?;
    let post_processor = RobertaProcessing::new(eos, bos).add_prefix_space(add_prefix_space).trim_offsets(!is_clip);
    tokenizer.with_post_processor(Some(post_processor));
    Ok(tokenizer)
}

/// CLIP's normalization and splitting around a BPE model.
fn clip_tokenizer(model: BPE) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(model);
    let spaces = Replace::new(ReplacePattern::Regex(r"\s+".into()), " ")?;
    tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])));
    let split = Split::new(SplitPattern::Regex(CLIP_WORDS.into()), SplitDelimiterBehavior::Removed, true)?;
    let byte_level = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![split.into(), byte_level.into()])));
    Ok(tokenizer)
}
