//! Bare sentencepiece models (`sentencepiece.bpe.model`, `spiece.model`): unigram vocabularies (Kudo 2018) in a protocol buffer, of
//! which four fields are needed: the pieces, their scores, their kinds, and the character map that normalises.

use crate::{Error, Result};
use std::path::Path;
use tokenizers::{
    Tokenizer,
    models::unigram::Unigram,
    normalizers::{Precompiled, Replace, Sequence, replace::ReplacePattern},
    pre_tokenizers::metaspace::{Metaspace, PrependScheme},
    processors::template::TemplateProcessing,
};

/// A field of a protocol buffer: its number and its value.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

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

fn fields(mut bytes: &[u8]) -> Option<Vec<(u64, Value<'_>)>> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)?),
            kind @ (1 | 2 | 5) => {
                let length = match kind {
                    1 => 8,
                    5 => 4,
                    _ => usize::try_from(varint(&mut bytes)?).ok()?,
                };
                let value = bytes.get(..length)?;
                bytes = &bytes[length..];
                Value::Bytes(value)
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
            (1, Value::Bytes(text)) => piece.text = String::from_utf8(text.to_vec()).ok()?,
            (2, Value::Bytes(score)) => piece.score = f64::from(f32::from_le_bytes(score.try_into().ok()?)),
            (3, Value::Number(kind)) => piece.kind = kind,
            _ => {}
        }
    }
    Some(piece)
}

/// XLM-RoBERTa's tokenizer (its four special tokens before the pieces, `<mask>` after them) from a bare model file.
pub(super) fn read(file: &Path) -> Result<Tokenizer> {
    let bytes = std::fs::read(file).map_err(|e| Error::folder(file, e))?;
    let bad = |e: String| Error::folder(file, e);
    let broken = || bad("not a sentencepiece model".into());
    let (mut pieces, mut map) = (Vec::new(), Vec::new());
    for field in fields(&bytes).ok_or_else(broken)? {
        match field {
            (1, Value::Bytes(inner)) => pieces.push(piece(inner).ok_or_else(broken)?),
            // The normaliser's own message, whose second field is its table.
            (3, Value::Bytes(inner)) => {
                for part in fields(inner).ok_or_else(broken)? {
                    if let (2, Value::Bytes(table)) = part {
                        map = table.to_vec();
                    }
                }
            }
            _ => {}
        }
    }
    if pieces.is_empty() {
        return Err(broken());
    }
    // fairseq's order: <s> <pad> </s> <unk>, then the pieces without the model's own special ones, then <mask>.
    let mut entries: Vec<(String, f64)> =
        ["<s>", "<pad>", "</s>", "<unk>"].into_iter().map(|t| (t.to_owned(), 0.0)).collect();
    entries.extend(pieces.into_iter().filter(|p| p.kind != 2 && p.kind != 3).map(|p| (p.text, p.score)));
    entries.push(("<mask>".into(), 0.0));
    let model = Unigram::from(entries, Some(3), false).map_err(|e| bad(e.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    let spaces = Replace::new(ReplacePattern::Regex(" {2,}".into()), " ").map_err(|e| bad(e.to_string()))?;
    let mut steps: Vec<tokenizers::NormalizerWrapper> = Vec::new();
    if !map.is_empty() {
        steps.push(Precompiled::from(&map).map_err(|e| bad(e.to_string()))?.into());
    }
    steps.push(spaces.into());
    tokenizer.with_normalizer(Some(Sequence::new(steps)));
    tokenizer.with_pre_tokenizer(Some(Metaspace::new('▁', PrependScheme::Always, true)));
    let ends = TemplateProcessing::builder()
        .try_single("<s> $A </s>")
        .map_err(bad)?
        .special_tokens(vec![("<s>", 0), ("</s>", 2)])
        .build()
        .map_err(|e| bad(e.to_string()))?;
    tokenizer.with_post_processor(Some(ends));
    let special: Vec<_> =
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"].iter().map(|t| tokenizers::AddedToken::from(*t, true)).collect();
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}
