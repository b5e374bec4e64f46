//! Phrase detection: pairs of words that occur together more often than by chance become one token. Section 4 of
//! *Distributed Representations of Words and Phrases and their Compositionality*
//! ([Mikolov et al., 2013](https://arxiv.org/abs/1310.4546)).

use super::sentences::for_each_sentence;
use crate::Result;
use std::{collections::HashMap, path::PathBuf};

/// Pairs of words to be joined, with their scores.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Phrases {
    scores: HashMap<(String, String), f64>,
}

impl Phrases {
    /// Finds the pairs that occur at least `min_count` times and score above `threshold`:
    /// score(a, b) = (count(a b) − min_count) · N / (count(a) · count(b)), where N is the number of distinct words and
    /// pairs, as in gensim.
    pub fn fit(files: &[PathBuf], min_count: u64, threshold: f64) -> Result<Self> {
        let mut words: HashMap<String, u64> = HashMap::new();
        let mut pairs: HashMap<(String, String), u64> = HashMap::new();
        for_each_sentence(files, &mut |_| {}, &mut |sentence| {
            for word in sentence {
                *words.entry((*word).to_owned()).or_default() += 1;
            }
            for pair in sentence.windows(2) {
                *pairs.entry((pair[0].to_owned(), pair[1].to_owned())).or_default() += 1;
            }
            Ok(())
        })?;
        let num_entries = (words.len() + pairs.len()) as f64;
        let scores = pairs.into_iter().filter(|(_, count)| *count >= min_count).filter_map(|(pair, count)| {
            let product = words[&pair.0] as f64 * words[&pair.1] as f64;
            let score = (count - min_count) as f64 / product * num_entries;
            (score > threshold).then_some((pair, score))
        });
        Ok(Self { scores: scores.collect() })
    }

    /// Number of pairs.
    pub fn num_pairs(&self) -> usize {
        self.scores.len()
    }

    /// The score of two consecutive words, if they are a phrase.
    pub fn score(&self, first: &str, second: &str) -> Option<f64> {
        self.scores.get(&(first.to_owned(), second.to_owned())).copied()
    }

    /// Joins the phrases of a sentence with `_`, from left to right.
    pub fn transform(&self, words: &[&str]) -> Vec<String> {
        let mut tokens = Vec::with_capacity(words.len());
        let mut position = 0;
        while position < words.len() {
            let word = words[position];
            if let Some(next) = words.get(position + 1).filter(|next| self.score(word, next).is_some()) {
                tokens.push(format!("{word}_{next}"));
                position += 2;
            } else {
                tokens.push(word.to_owned());
                position += 1;
            }
        }
        tokens
    }
}
