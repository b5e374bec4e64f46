//! A query and a text as one sequence of tokens, for rerankers (cross-encoders).
//!
//! *Passage Re-ranking with BERT* (Nogueira, Cho, 2019), <https://arxiv.org/abs/1901.04085>.

use super::tokenizer::TextProcessor;
use crate::{Error, Result, family::ModelBuilder, json::read_json};
use mm_core::{Error as CoreError, Tensor};
use rayon::prelude::*;
use std::sync::Arc;
use tokenizers::{Encoding, PostProcessor, Tokenizer, TruncationDirection};

/// Tokenizes a query with each of several texts, in the checkpoint's own template for pairs. Pairs that are too long are
/// truncated as transformers' `longest_first` does: the longer of the two is cut to what the other leaves, both to half
/// where neither fits into that.
pub struct PairProcessor {
    tokenizer: Arc<Tokenizer>,
    /// Maximum number of tokens, the special ones included.
    max_length: usize,
    /// Maximum number of tokens of query and text.
    room: usize,
    has_token_types: bool,
}

/// A query and a text as the model takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedPair {
    /// Token ids.
    pub ids: Vec<i64>,
    /// Token types: 0 for tokens of the query, 1 for those of the text (BERT); 0 for all where the checkpoint has no such
    /// types. As many as `ids`.
    pub token_types: Vec<i64>,
    /// Whether the query or the text was cut.
    pub is_truncated: bool,
}

impl TokenizedPair {
    /// Ids and types, `[length, 2]`, int64.
    ///
    /// # Errors
    /// If the tensor cannot be made.
    pub fn to_tensor(&self) -> mm_core::Result<Tensor> {
        let values: Vec<i64> = self.ids.iter().zip(&self.token_types).flat_map(|(id, kind)| [*id, *kind]).collect();
        Tensor::from_vec(&values, &[self.ids.len() as i64, 2])
    }
}

/// The query or the text, without special tokens.
struct Part {
    /// At most the model's maximum number of tokens.
    encoding: Encoding,
    /// The number of tokens of the whole.
    length: usize,
}

impl PairProcessor {
    /// That of a checkpoint, with the tokenizer of its single texts. `num_token_types` is the size of its table of token
    /// types, if it has one.
    pub(super) fn new(b: &ModelBuilder<'_>, texts: &TextProcessor, num_token_types: Option<i64>) -> Result<Self> {
        if !texts.prompt().is_empty() {
            let file = b.folder.join("config_sentence_transformers.json");
            return Err(Error::folder(file, "default_prompt_name: found a prompt, expected none for a reranker"));
        }
        let config = read_json(&b.tokenizer_folder.join("tokenizer_config.json"))?;
        let inputs = config["model_input_names"].as_array();
        let tokenizer = texts.tokenizer().clone();
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(true));
        let max_length = texts.max_length();
        let Some(room) = max_length.checked_sub(special).filter(|room| *room > 1) else {
            let expected = format!("more than {} for a pair of texts", special + 1);
            return Err(Error::folder(
                b.folder,
                format!("maximum length: found {max_length} tokens, expected {expected}"),
            ));
        };
        // transformers leaves the types out where the tokenizer's config does.
        let has_token_types = inputs.is_none_or(|names| names.iter().any(|name| name == "token_type_ids"));
        let processor = Self { tokenizer, max_length, room, has_token_types };
        let types = processor.pair(&processor.part("a")?, "a")?.token_types;
        match (types.iter().max(), num_token_types) {
            (Some(largest), Some(count)) if *largest >= count => Err(b.config_error(format!(
                "type_vocab_size: found {count}, but the tokenizer gives tokens of a pair the type {largest}; expected at \
                 least {}",
                largest + 1
            ))),
            _ => Ok(processor),
        }
    }

    /// The query with each text, in the order of the texts.
    ///
    /// # Errors
    /// If a text exceeds the size limit of a text, or cannot be tokenized.
    pub fn pairs(&self, query: &str, texts: &[String]) -> Result<Vec<TokenizedPair>> {
        let query = self.part(query)?;
        texts.par_iter().map(|text| self.pair(&query, text)).collect()
    }

    fn part(&self, text: &str) -> Result<Part> {
        mm_data::decode::check_text_size(text).map_err(CoreError::Sample)?;
        let mut encoding = self.tokenizer.encode_fast(text, false).map_err(cannot)?;
        // The tokenizer cuts each text at the model's length alone.
        let cut: usize = encoding.take_overflowing().iter().map(Encoding::len).sum();
        Ok(Part { length: encoding.len() + cut, encoding })
    }

    fn pair(&self, query: &Part, text: &str) -> Result<TokenizedPair> {
        let text = self.part(text)?;
        let lengths = longest_first((query.length, text.length), self.room);
        let first = truncated(query.encoding.clone(), lengths.0);
        let mut second = truncated(text.encoding, lengths.1);
        second.set_type_ids(vec![1; second.len()]);
        let encoding = self.tokenizer.post_process(first, Some(second), true).map_err(cannot)?;
        if encoding.len() > self.max_length {
            let reason = "the tokenizer's template repeats a text, which mm does not support";
            let (found, expected) = (encoding.len(), self.max_length);
            let text = format!("found {found} tokens, expected at most {expected}: {reason}");
            return Err(CoreError::Sample(text).into());
        }
        let types = |id: &u32| if self.has_token_types { i64::from(*id) } else { 0 };
        Ok(TokenizedPair {
            ids: encoding.get_ids().iter().map(|id| i64::from(*id)).collect(),
            token_types: encoding.get_type_ids().iter().map(types).collect(),
            is_truncated: lengths != (query.length, text.length),
        })
    }
}

fn cannot(error: tokenizers::Error) -> Error {
    CoreError::Sample(format!("cannot be tokenized: {error}")).into()
}

/// The first tokens, without what is cut: each part of it would be combined with each of the other text's.
fn truncated(mut encoding: Encoding, length: usize) -> Encoding {
    encoding.truncate(length, 0, TruncationDirection::Right);
    encoding.take_overflowing();
    encoding
}

/// The lengths to which two texts are cut so that they have at most `room` tokens together.
fn longest_first((first, second): (usize, usize), room: usize) -> (usize, usize) {
    if first + second <= room {
        return (first, second);
    }
    let shorter = first.min(second).min(room / 2);
    let longer = room - shorter;
    if first > second { (longer, shorter) } else { (shorter, longer) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::load_tokenizer;
    use std::path::{Path, PathBuf};

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/families").join(name)
    }

    #[test]
    fn the_longer_text_is_cut_first() {
        for (lengths, room, expected) in [
            ((3, 4), 7, (3, 4)),
            ((3, 5), 7, (3, 4)),
            ((5, 3), 7, (4, 3)),
            ((900, 2), 7, (5, 2)),
            ((0, 9), 7, (0, 7)),
            // An odd place goes to the longer one, or to the second of two that are equally long.
            ((9, 8), 7, (4, 3)),
            ((8, 8), 7, (3, 4)),
            ((4, 900), 8, (4, 4)),
        ] {
            assert_eq!(longest_first(lengths, room), expected, "{lengths:?} {room}");
        }
    }

    /// The tokenizers that mm makes of bare vocabularies have templates for pairs, as those of transformers.
    #[test]
    fn bare_vocabularies_separate_the_texts_of_a_pair() {
        let separated: [(&str, &[&str], u32); 3] = [
            ("bert-bare-cased", &["[CLS]", "A", "[SEP]", "B", "[SEP]"], 1),
            ("roberta-bare-merges", &["<s>", "A", "</s>", "</s>", "B", "</s>"], 0),
            ("xlm-roberta-bare-sentencepiece", &["<s>", "A", "</s>", "</s>", "B", "</s>"], 0),
        ];
        for (name, template, kind) in separated {
            let tokenizer = load_tokenizer(&fixture(name)).unwrap();
            let ids = |text: &str| tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec();
            let expected: Vec<u32> = template
                .iter()
                .flat_map(|piece| match *piece {
                    "A" => ids("a dog"),
                    "B" => ids("the fox and"),
                    special => vec![tokenizer.token_to_id(special).unwrap()],
                })
                .collect();
            let pair = tokenizer.encode_fast(("a dog", "the fox and"), true).unwrap();
            assert_eq!(pair.get_ids(), expected, "{name}");
            assert_eq!(pair.get_type_ids().iter().max(), Some(&kind), "{name}");
        }
    }
}
