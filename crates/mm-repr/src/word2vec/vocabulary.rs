//! Words and their counts.

use std::collections::HashMap;

/// The words of a corpus and their counts, most frequent first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vocabulary {
    /// The words; a word's id is its index.
    pub words: Vec<String>,
    /// Number of occurrences of each word.
    pub counts: Vec<u64>,
    ids: HashMap<String, u32>,
}

impl Vocabulary {
    pub(super) fn new(words: Vec<String>, counts: Vec<u64>) -> Self {
        let mut ids = HashMap::with_capacity(words.len());
        for (id, word) in words.iter().enumerate() {
            // Of a word that occurs more than once, the first vector counts.
            ids.entry(word.clone()).or_insert(id as u32);
        }
        Self { words, counts, ids }
    }

    /// The id of a word, `None` if it is out of vocabulary.
    pub fn id(&self, word: &str) -> Option<u32> {
        self.ids.get(word).copied()
    }

    /// The sum of all counts.
    pub fn total_count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }
}
