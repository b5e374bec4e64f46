//! Bare sentencepiece models (`sentencepiece.bpe.model`, `spiece.model`): unigram vocabularies (Kudo 2018) in a protocol buffer, of
//! which four fields are needed: the pieces, their scores, their kinds, and the character map that normalises.

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

/// What a model file holds: its pieces in order, and the table of its normaliser.
struct Model {
    pieces: Vec<Piece>,
    map: Vec<u8>,
}

fn model(file: &Path) -> Result<Model> {
    let bytes = std::fs::read(file).map_err(|e| Error::folder(file, e))?;
    let broken = || Error::folder(file, "not a sentencepiece model");
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
    if pieces.is_empty() { Err(broken()) } else { Ok(Model { pieces, map }) }
}

/// Kinds of a piece that stands for no text.
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;

/// XLM-RoBERTa's tokenizer from a bare `sentencepiece.bpe.model`: fairseq's four special tokens, the pieces without the model's own
/// special ones, `<mask>`.
pub(super) fn fairseq(file: &Path) -> Result<Tokenizer> {
    let Model { pieces, map } = model(file)?;
    let mut entries: Vec<(String, f64)> =
        ["<s>", "<pad>", "</s>", "<unk>"].into_iter().map(|t| (t.to_owned(), 0.0)).collect();
    entries.extend(pieces.into_iter().filter(|p| p.kind != UNKNOWN && p.kind != CONTROL).map(|p| (p.text, p.score)));
    entries.push(("<mask>".into(), 0.0));
    assemble(file, entries, 3, Vec::new(), &map, "<s> $A </s>", &["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
}

/// `SigLIP`'s tokenizer from a bare `spiece.model`: the pieces as they stand, after a text without punctuation, in lower case if it is
/// `lower`; the end of the text marked.
pub(super) fn siglip(file: &Path, lower: bool) -> Result<Tokenizer> {
    let Model { pieces, map } = model(file)?;
    let bad = |e: String| Error::folder(file, e);
    let unknown = pieces.iter().position(|p| p.kind == UNKNOWN).ok_or_else(|| bad("has no unknown piece".into()))?;
    if !pieces.iter().any(|p| p.text == "</s>") {
        return Err(bad("has no </s>, which ends each text".into()));
    }
    let special: Vec<String> =
        pieces.iter().filter(|p| p.kind == UNKNOWN || p.kind == CONTROL).map(|p| p.text.clone()).collect();
    let replace = |pattern: &str, by: &str| {
        let made = Replace::new(ReplacePattern::Regex(pattern.into()), by);
        made.map(NormalizerWrapper::from).map_err(|e| bad(e.to_string()))
    };
    let mut steps = Vec::new();
    if lower {
        steps.push(Lowercase.into());
    }
    steps.extend([replace(r"[!-/:-@\[-`{-~]", "")?, replace(r"\s+", " ")?, Strip::new(true, true).into()]);
    let entries = pieces.into_iter().map(|p| (p.text, p.score)).collect();
    let special: Vec<&str> = special.iter().map(String::as_str).collect();
    assemble(file, entries, unknown, steps, &map, "$A </s>", &special)
}

fn assemble(
    file: &Path,
    entries: Vec<(String, f64)>,
    unknown: usize,
    mut steps: Vec<NormalizerWrapper>,
    map: &[u8],
    ends: &str,
    special: &[&str],
) -> Result<Tokenizer> {
    let bad = |e: String| Error::folder(file, e);
    let model = Unigram::from(entries, Some(unknown), false).map_err(|e| bad(e.to_string()))?;
    let mut tokenizer = Tokenizer::new(model);
    if !map.is_empty() {
        steps.push(Precompiled::from(map).map_err(|e| bad(e.to_string()))?.into());
    }
    if !steps.is_empty() {
        tokenizer.with_normalizer(Some(Sequence::new(steps)));
    }
    let words = Metaspace::new('▁', PrependScheme::Always, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![WhitespaceSplit.into(), words.into()])));
    let id = |token: &str| Some((token.to_owned(), tokenizer.token_to_id(token)?));
    let marks: Vec<_> = ["<s>", "</s>"].into_iter().filter(|t| ends.contains(t)).filter_map(id).collect();
    let ends = TemplateProcessing::builder().try_single(ends).map_err(bad)?.special_tokens(marks).build();
    tokenizer.with_post_processor(Some(ends.map_err(|e| bad(e.to_string()))?));
    let special: Vec<_> = special.iter().map(|t| tokenizers::AddedToken::from(*t, true)).collect();
    tokenizer.add_special_tokens(&special);
    Ok(tokenizer)
}
