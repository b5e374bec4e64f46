//! Captions as token ids: padding 0, unknown 1, the begin and end tokens, then the words of the vocabulary.

use crate::metrics::caption_tokens;
use mm_core::{ProcessContext, Processor, Source, Tensor};
use mm_reason::captioner::{BOS, EOS};
use std::collections::HashMap;

/// Id of a word that is not in the vocabulary.
pub(super) const UNKNOWN: i64 = 1;
/// Number of ids before the first word.
pub(super) const NUM_SPECIAL: i64 = 4;

/// Turns captions into token ids with a begin and an end token.
pub(super) struct CaptionTokenizer {
    ids: HashMap<String, i64>,
    words: Vec<String>,
    /// Words beyond this many are dropped.
    max_words: usize,
}

impl CaptionTokenizer {
    pub(super) fn new(vocabulary: &[String], max_words: usize) -> Self {
        let ids = vocabulary.iter().cloned().zip(NUM_SPECIAL..).collect();
        Self { ids, words: vocabulary.to_vec(), max_words }
    }

    /// Number of ids.
    pub(super) fn vocab_size(&self) -> i64 {
        self.words.len() as i64 + NUM_SPECIAL
    }

    /// The words of token ids, joined by spaces; special tokens are left out.
    pub(super) fn decode(&self, ids: &[i64]) -> String {
        let word = |id: &i64| usize::try_from(id - NUM_SPECIAL).ok().and_then(|n| self.words.get(n)).cloned();
        ids.iter().filter_map(word).collect::<Vec<_>>().join(" ")
    }
}

impl Processor for CaptionTokenizer {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> mm_core::Result<Tensor> {
        let Source::Text(text) = source else {
            return Err(mm_core::Error::Sample(format!("found {source:?}, expected a caption")));
        };
        let words = caption_tokens(text).into_iter().take(self.max_words);
        let ids = words.map(|w| self.ids.get(&w).copied().unwrap_or(UNKNOWN));
        Tensor::from_slice(&std::iter::once(BOS).chain(ids).chain([EOS]).collect::<Vec<_>>())
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("captions {} {}", self.words.len(), self.max_words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captions_survive_a_round_trip_and_unknown_words_are_marked() {
        let tokenizer = CaptionTokenizer::new(&["a".into(), "dog".into()], 3);
        let ids = tokenizer.process(&Source::Text("A dog barks loudly.".into()), &mut ProcessContext::eval()).unwrap();
        let ids = ids.to_vec::<i64>().unwrap();
        assert_eq!(ids, [BOS, NUM_SPECIAL, NUM_SPECIAL + 1, UNKNOWN, EOS]);
        assert_eq!(tokenizer.decode(&ids), "a dog");
        assert_eq!(tokenizer.vocab_size(), 6);
    }
}
