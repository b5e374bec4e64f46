//! Tokenizers from bare sentencepiece models (`sentencepiece.bpe.model`, `spiece.model`): unigram vocabularies in a
//! protocol buffer, of which four fields are needed: pieces, their scores, their types, and the normalizer's character
//! map.
//!
//! *Subword Regularization: Improving Neural Network Translation Models with Multiple Subword Candidates* (Kudo, 2018),
//! <https://arxiv.org/abs/1804.10959>.

use crate::{Error, Result};
use std::path::Path;
use tokenizers::{
    Tokenizer,
    models::unigram::Unigram,
    normalizers::{Lowercase, NormalizerWrapper, Precompiled, Replace, Sequence, Strip, replace::ReplacePattern},
    pre_tokenizers::{
        metaspace::{Metaspace, PrependScheme},
        sequence::Sequence as PreTokenizers,
        whitespace::WhitespaceSplit,
    },
    processors::template::TemplateProcessing,
};

/// A field's value in a protocol buffer.
enum FieldValue<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

/// Reads a variable-length integer and advances `bytes`.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Field numbers and values of a message; `None` if it is invalid.
fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, FieldValue<'_>)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => FieldValue::Varint(varint(&mut bytes)?),
            wire_type @ (1 | 2 | 5) => {
                let length = match wire_type {
                    1 => 8,
                    5 => 4,
                    _ => usize::try_from(varint(&mut bytes)?).ok()?,
                };
                let value = bytes.get(..length)?;
                bytes = &bytes[length..];
                FieldValue::Bytes(value)
            }
            _ => return None,
        };
        out.push((key >> 3, value));
    }
    Some(out)
}

struct Piece {
    text: String,
    score: f64,
    kind: u64,
}

fn piece(bytes: &[u8]) -> Option<Piece> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: 1 };
    for field in fields(bytes)? {
        match field {
            (1, FieldValue::Bytes(text)) => piece.text = String::from_utf8(text.to_vec()).ok()?,
            (2, FieldValue::Bytes(score)) => piece.score = f64::from(f32::from_le_bytes(score.try_into().ok()?)),
            (3, FieldValue::Varint(kind)) => piece.kind = kind,
            _ => {}
        }
    }
    Some(piece)
}

/// A model file: its pieces in order, and the normalizer's character map.
struct Model {
    pieces: Vec<Piece>,
    char_map: Vec<u8>,
}

fn read_model(file: &Path) -> Result<Model> {
    let bytes = std::fs::read(file).map_err(|e| Error::folder(file, e))?;
    let invalid = || Error::folder(file, "not a sentencepiece model");
    let (mut pieces, mut char_map) = (Vec::new(), Vec::new());
    for field in fields(&bytes).ok_or_else(invalid)? {
        match field {
            (1, FieldValue::Bytes(inner)) => pieces.push(piece(inner).ok_or_else(invalid)?),
            // The normalizer, whose second field is the character map.
            (3, FieldValue::Bytes(inner)) => {
                for part in fields(inner).ok_or_else(invalid)? {
                    if let (2, FieldValue::Bytes(table)) = part {
                        char_map = table.to_vec();
                    }
                }
            }
            _ => {}
        }
    }
    if !char_map.is_empty() && !has_trie(&char_map) {
        return Err(Error::folder(file, "the character map of its normalizer is damaged; download it again"));
    }
    if pieces.is_empty() { Err(invalid()) } else { Ok(Model { pieces, char_map }) }
}

/// Whether a character map starts with the length of its trie in bytes and holds that many.
fn has_trie(char_map: &[u8]) -> bool {
    let length = char_map.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
    length.is_some_and(|length| (4..=char_map.len() - 4).contains(&length))
}

/// Type of the unknown piece.
const UNKNOWN: u64 = 2;
/// Type of control pieces, which stand for no text.
const CONTROL: u64 = 3;

impl Piece {
    fn is_special(&self) -> bool {
        self.kind == UNKNOWN || self.kind == CONTROL
    }
}

/// XLM-RoBERTa's tokenizer: fairseq's four special tokens, the pieces without the model's own special ones, `<mask>`.
pub(super) fn xlm_roberta_tokenizer(file: &Path) -> Result<Tokenizer> {
    let Model { pieces, char_map } = read_model(file)?;
    let mut entries: Vec<(String, f64)> =
        ["<s>", "<pad>", "</s>", "<unk>"].into_iter().map(|t| (t.to_owned(), 0.0)).collect();
    entries.extend(pieces.into_iter().filter(|p| !p.is_special()).map(|p| (p.text, p.score)));
    entries.push(("<mask>".into(), 0.0));
    Assembly {
        entries,
        unknown_id: 3,
        normalizers: Vec::new(),
        char_map: &char_map,
        template: "<s> $A </s>",
        pair: Some("<s> $A </s> </s> $B </s>"),
        special_tokens: &["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    }
    .tokenizer()
    .map_err(|e| Error::folder(file, e))
}

/// SigLIP's tokenizer: punctuation is removed, text is in lower case if `lower_case`, and an end token is appended.
pub(super) fn siglip_tokenizer(file: &Path, lower_case: bool) -> Result<Tokenizer> {
    let Model { pieces, char_map } = read_model(file)?;
    let error = |e: String| Error::folder(file, e);
    let unknown_id =
        pieces.iter().position(|p| p.kind == UNKNOWN).ok_or_else(|| error("has no unknown piece".into()))?;
    if !pieces.iter().any(|p| p.text == "</s>") {
        return Err(error("has no end token </s>".into()));
    }
    let special: Vec<String> = pieces.iter().filter(|p| p.is_special()).map(|p| p.text.clone()).collect();
    let replace = |pattern: &str, replacement: &str| {
        let normalizer = Replace::new(ReplacePattern::Regex(pattern.into()), replacement);
        normalizer.map(NormalizerWrapper::from).map_err(|e| error(e.to_string()))
    };
    let mut normalizers = Vec::new();
    if lower_case {
        normalizers.push(Lowercase.into());
    }
    normalizers.extend([replace(r"[!-/:-@\[-`{-~]", "")?, replace(r"\s+", " ")?, Strip::new(true, true).into()]);
    let entries = pieces.into_iter().map(|p| (p.text, p.score)).collect();
    let special: Vec<&str> = special.iter().map(String::as_str).collect();
    Assembly {
        entries,
        unknown_id,
        normalizers,
        char_map: &char_map,
        template: "$A </s>",
        pair: None,
        special_tokens: &special,
    }
    .tokenizer()
    .map_err(|e| error(e.to_string()))
}

/// The parts of a tokenizer.
struct Assembly<'a> {
    /// Pieces and scores.
    entries: Vec<(String, f64)>,
    unknown_id: usize,
    /// Applied before the character map.
    normalizers: Vec<NormalizerWrapper>,
    char_map: &'a [u8],
    /// Start and end tokens around the text `$A`.
    template: &'a str,
    /// The same around two texts, where the model takes them.
    pair: Option<&'a str>,
    special_tokens: &'a [&'a str],
}

impl Assembly<'_> {
    fn tokenizer(mut self) -> tokenizers::Result<Tokenizer> {
        let mut tokenizer = Tokenizer::new(Unigram::from(self.entries, Some(self.unknown_id), false)?);
        if !self.char_map.is_empty() {
            self.normalizers.push(Precompiled::from(self.char_map)?.into());
        }
        if !self.normalizers.is_empty() {
            tokenizer.with_normalizer(Some(Sequence::new(self.normalizers)));
        }
        let metaspace = Metaspace::new('▁', PrependScheme::Always, true);
        tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![WhitespaceSplit.into(), metaspace.into()])));
        let with_id = |token: &str| Some((token.to_owned(), tokenizer.token_to_id(token)?));
        let ends: Vec<_> =
            ["<s>", "</s>"].into_iter().filter(|t| self.template.contains(t)).filter_map(with_id).collect();
        let mut template = TemplateProcessing::builder();
        template.try_single(self.template)?.special_tokens(ends);
        if let Some(pair) = self.pair {
            template.try_pair(pair)?;
        }
        tokenizer.with_post_processor(Some(template.build()?));
        let special: Vec<_> = self.special_tokens.iter().map(|t| tokenizers::AddedToken::from(*t, true)).collect();
        tokenizer.add_special_tokens(&special);
        Ok(tokenizer)
    }
}
