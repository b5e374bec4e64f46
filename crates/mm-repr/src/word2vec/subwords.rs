//! Character n-grams as in fastText: *Enriching Word Vectors with Subword Information*
//! ([Bojanowski et al., 2017](https://arxiv.org/abs/1607.04606)).

use serde::{Deserialize, Serialize};

/// Character n-grams of a word, hashed into a fixed number of rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubwordConfig {
    /// Shortest n-gram, in characters.
    pub min_n: usize,
    /// Longest n-gram, in characters.
    pub max_n: usize,
    /// Number of hash buckets, each with a row of its own.
    pub bucket: u32,
}

impl Default for SubwordConfig {
    fn default() -> Self {
        Self { min_n: 3, max_n: 6, bucket: 2_000_000 }
    }
}

impl SubwordConfig {
    /// The buckets, below [`bucket`](Self::bucket), of a word's n-grams; the same hash as fastText.
    pub fn ngrams<'a>(&'a self, word: &str) -> impl Iterator<Item = u32> + use<'a> {
        let delimited = format!("<{word}>");
        let offsets: Vec<usize> = delimited.char_indices().map(|(i, _)| i).chain([delimited.len()]).collect();
        let num_chars = offsets.len() - 1;
        let hash = move |start: usize, end: usize| {
            // FNV-1a over signed bytes, as in fastText.
            delimited.as_bytes()[offsets[start]..offsets[end]]
                .iter()
                .fold(2_166_136_261u32, |h, b| (h ^ i32::from(*b as i8) as u32).wrapping_mul(16_777_619))
        };
        (0..num_chars)
            .flat_map(move |start| (self.min_n..=self.max_n.min(num_chars)).map(move |n| (start, start + n)))
            // A unigram that is only a word boundary carries no information.
            .filter(move |(start, end)| *end <= num_chars && !(end - start == 1 && (*start == 0 || *end == num_chars)))
            .map(move |(start, end)| hash(start, end) % self.bucket.max(1))
    }
}

/// The n-gram rows of every vocabulary word, concatenated.
#[derive(Default)]
pub(super) struct NgramTable {
    offsets: Vec<usize>,
    rows: Vec<u32>,
}

impl NgramTable {
    /// Rows of the input matrix, whose n-gram rows follow those of the words; empty without subwords.
    pub(super) fn new(words: &[String], subwords: Option<&SubwordConfig>) -> Self {
        let Some(subwords) = subwords else { return Self::default() };
        let mut table = Self { offsets: vec![0], rows: Vec::new() };
        for word in words {
            table.rows.extend(subwords.ngrams(word).map(|bucket| words.len() as u32 + bucket));
            table.offsets.push(table.rows.len());
        }
        table
    }

    pub(super) fn rows(&self, word: u32) -> &[u32] {
        match self.offsets.get(word as usize..word as usize + 2) {
            Some([start, end]) => &self.rows[*start..*end],
            _ => &[],
        }
    }
}
