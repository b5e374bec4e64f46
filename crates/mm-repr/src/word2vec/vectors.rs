//! Word vectors and similarity queries.

use super::{config::Architecture, subwords::SubwordConfig, vocabulary::Vocabulary};
use crate::Result;
use rayon::prelude::*;
use std::sync::OnceLock;

/// Words and their vectors, as gensim's `KeyedVectors`.
#[derive(Debug, Clone, Default)]
pub struct WordVectors {
    /// The words and their counts (1 where a file has no counts).
    pub vocabulary: Vocabulary,
    /// Dimension of the vectors.
    pub vector_size: usize,
    /// `[words + buckets, vector_size]`: vectors of words, then of n-gram buckets.
    pub(super) input: Vec<f32>,
    /// `[words, vector_size]`: output weights; empty where a file has none.
    pub(super) output: Vec<f32>,
    /// Whether the output layer was trained by negative sampling, which fastText's format records.
    pub(super) uses_negative_sampling: bool,
    pub(super) architecture: Architecture,
    pub(super) subwords: Option<SubwordConfig>,
    /// Vectors of all words with unit norm, computed at the first comparison.
    pub(super) normalized: OnceLock<Vec<f32>>,
}

impl WordVectors {
    fn row(&self, index: usize) -> &[f32] {
        &self.input[index * self.vector_size..(index + 1) * self.vector_size]
    }

    /// The vector of a word; with subwords, the mean of its own row and those of its n-grams. `None` if the word is out
    /// of vocabulary and has no n-grams.
    pub fn vector(&self, word: &str) -> Option<Vec<f32>> {
        let id = self.vocabulary.id(word).map(|id| id as usize);
        let Some(subwords) = &self.subwords else { return id.map(|id| self.row(id).to_vec()) };
        let ngrams = subwords.ngrams(word).map(|bucket| self.vocabulary.words.len() + bucket as usize);
        let rows: Vec<usize> = id.into_iter().chain(ngrams).collect();
        if rows.is_empty() {
            return None;
        }
        let mut mean = vec![0f32; self.vector_size];
        for row in &rows {
            mean.iter_mut().zip(self.row(*row)).for_each(|(sum, v)| *sum += v);
        }
        mean.iter_mut().for_each(|v| *v /= rows.len() as f32);
        Some(mean)
    }

    /// `[words, vector_size]`: the vectors of all words with unit norm.
    pub(super) fn normalized(&self) -> &[f32] {
        self.normalized.get_or_init(|| {
            let vector = |word: &String| self.vector(word).unwrap_or_else(|| vec![0.0; self.vector_size]);
            let rows: Vec<Vec<f32>> = self.vocabulary.words.par_iter().map(|word| normalize(vector(word))).collect();
            rows.concat()
        })
    }

    /// The `top` words with the highest cosine similarity to a vector, best first, without those in `exclude`.
    pub fn similar_by_vector(&self, vector: &[f32], top: usize, exclude: &[&str]) -> Vec<(&str, f32)> {
        let query = normalize(vector.to_vec());
        let exclude: Vec<u32> = exclude.iter().filter_map(|word| self.vocabulary.id(word)).collect();
        let mut scores: Vec<(u32, f32)> = self
            .normalized()
            .par_chunks(self.vector_size)
            .enumerate()
            .map(|(id, row)| (id as u32, row.iter().zip(&query).map(|(a, b)| a * b).sum()))
            .filter(|(id, _)| !exclude.contains(id))
            .collect();
        let count = top.min(scores.len());
        if count > 0 && count < scores.len() {
            scores.select_nth_unstable_by(count - 1, |a, b| b.1.total_cmp(&a.1));
            scores.truncate(count);
        }
        scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        scores.into_iter().map(|(id, score)| (self.vocabulary.words[id as usize].as_str(), score)).collect()
    }

    /// The `top` words with the highest cosine similarity to a word.
    ///
    /// # Errors
    /// The word has no vector.
    pub fn most_similar(&self, word: &str, top: usize) -> Result<Vec<(&str, f32)>> {
        Ok(self.similar_by_vector(&self.known_vector(word)?, top, &[word]))
    }

    /// Words that are to `c` as `b` is to `a`, by the cosine with b − a + c: with `a` man, `b` king and `c` woman,
    /// queen.
    ///
    /// # Errors
    /// One of the words has no vector.
    pub fn analogy(&self, a: &str, b: &str, c: &str, top: usize) -> Result<Vec<(&str, f32)>> {
        let [va, vb, vc] = [a, b, c].map(|word| self.known_vector(word).map(normalize));
        let (va, vb, vc) = (va?, vb?, vc?);
        let query: Vec<f32> = vb.iter().zip(&va).zip(&vc).map(|((b, a), c)| b - a + c).collect();
        Ok(self.similar_by_vector(&query, top, &[a, b, c]))
    }

    fn known_vector(&self, word: &str) -> Result<Vec<f32>> {
        self.vector(word).ok_or_else(|| {
            let nearest = self
                .vocabulary
                .words
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(a, word).total_cmp(&strsim::jaro_winkler(b, word)));
            let suggestion = nearest.map_or("", |w| w);
            mm_core::Error::Sample(format!("`{word}` is not in the vocabulary; did you mean `{suggestion}`?")).into()
        })
    }
}

/// Divides a vector by its norm; a zero vector stays zero.
pub(super) fn normalize(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v /= norm);
    }
    vector
}
