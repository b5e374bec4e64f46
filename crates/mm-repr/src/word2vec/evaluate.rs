//! Intrinsic evaluation: word similarity (WordSim-353, SimLex-999) and word analogies.

use super::{
    sentences::io_error,
    vectors::{WordVectors, normalize},
};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::Serialize;
use std::{collections::HashMap, path::Path};

/// Agreement with human similarity ratings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct WordPairResult {
    /// Spearman's rank correlation of cosine similarities and ratings.
    pub spearman: f64,
    /// Number of pairs evaluated.
    pub num_pairs: usize,
    /// Number of pairs skipped because a word is out of vocabulary.
    pub num_oov: usize,
}

/// Accuracy on word analogies.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AnalogyResult {
    /// Accuracy over all questions.
    pub accuracy: f64,
    /// Number of questions evaluated.
    pub num_questions: usize,
    /// Number of questions skipped because a word is out of vocabulary.
    pub num_oov: usize,
    /// Results by section of the file.
    pub sections: Vec<AnalogySection>,
}

/// The result of one section of an analogy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AnalogySection {
    /// Name of the section.
    pub name: String,
    /// Number of correct answers.
    pub num_correct: usize,
    /// Number of questions evaluated.
    pub num_questions: usize,
}

/// Ranks from one; ties share their mean rank.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let num_ties = order[start..].iter().take_while(|i| values[**i] == values[order[start]]).count();
        let mean = start as f64 + (num_ties as f64 + 1.0) / 2.0;
        order[start..start + num_ties].iter().for_each(|i| ranks[*i] = mean);
        start += num_ties;
    }
    ranks
}

/// Spearman's rank correlation.
pub(super) fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let (mean_a, mean_b) = (mean(&a), mean(&b));
    let covariance: f64 = a.iter().zip(&b).map(|(x, y)| (x - mean_a) * (y - mean_b)).sum();
    let variance = |v: &[f64], mean: f64| v.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
    covariance / (variance(&a, mean_a) * variance(&b, mean_b)).sqrt()
}

impl WordVectors {
    /// Ids by uppercase word, of the most frequent spelling: evaluation files differ in case.
    fn ids_ignoring_case(&self) -> HashMap<String, u32> {
        let mut ids = HashMap::new();
        for (id, word) in self.vocabulary.words.iter().enumerate() {
            ids.entry(word.to_uppercase()).or_insert(id as u32);
        }
        ids
    }

    /// Correlates cosine similarities with human ratings. Each line of the file has two words and a rating, separated
    /// by tabs; lines that start with `#` are comments (the format in which gensim ships WordSim-353 and SimLex-999).
    ///
    /// # Errors
    /// The file cannot be read or has fewer than two pairs in the vocabulary.
    pub fn evaluate_word_pairs(&self, path: &Path) -> Result<WordPairResult> {
        let text = std::fs::read_to_string(path).map_err(io_error(path))?;
        let ids = self.ids_ignoring_case();
        let rows = self.normalized();
        let row = |id: u32| &rows[id as usize * self.vector_size..(id as usize + 1) * self.vector_size];
        let (mut similarities, mut ratings, mut num_oov) = (Vec::new(), Vec::new(), 0);
        for line in text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
            let fields: Vec<&str> = line.split('\t').map(str::trim).collect();
            let [a, b, rating, ..] = fields[..] else { continue };
            let Ok(rating) = rating.parse() else { continue };
            match (ids.get(&a.to_uppercase()), ids.get(&b.to_uppercase())) {
                (Some(a), Some(b)) => {
                    similarities.push(row(*a).iter().zip(row(*b)).map(|(x, y)| f64::from(x * y)).sum());
                    ratings.push(rating);
                }
                _ => num_oov += 1,
            }
        }
        let num_pairs = similarities.len();
        if num_pairs < 2 {
            let reason =
                format!("found {num_pairs} pairs in the vocabulary ({num_oov} outside), expected at least two");
            return Err(Error::folder(path, reason));
        }
        Ok(WordPairResult { spearman: spearman(&similarities, &ratings), num_pairs, num_oov })
    }

    /// Answers analogy questions of four words a line, `: name` before each section (the format of Google's
    /// `questions-words.txt`, *Efficient Estimation of Word Representations in Vector Space*, [Mikolov et al.,
    /// 2013](https://arxiv.org/abs/1301.3781)). An answer is correct if the fourth word has the highest cosine
    /// similarity with b − a + c among all other words.
    ///
    /// # Errors
    /// The file cannot be read or has no question in the vocabulary.
    pub fn evaluate_word_analogies(&self, path: &Path) -> Result<AnalogyResult> {
        let text = std::fs::read_to_string(path).map_err(io_error(path))?;
        let ids = self.ids_ignoring_case();
        let (mut questions, mut num_oov, mut sections) = (Vec::new(), 0, Vec::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix(':') {
                sections.push(AnalogySection { name: name.trim().to_owned(), num_correct: 0, num_questions: 0 });
                continue;
            }
            let words: Vec<Option<u32>> =
                line.split_whitespace().map(|w| ids.get(&w.to_uppercase()).copied()).collect();
            match words[..] {
                [Some(a), Some(b), Some(c), Some(d)] => questions.push((sections.len().max(1) - 1, [a, b, c, d])),
                [_, _, _, _] => num_oov += 1,
                _ => {}
            }
        }
        if questions.is_empty() {
            let reason = format!("found no question in the vocabulary ({num_oov} outside), expected at least one");
            return Err(Error::folder(path, reason));
        }
        let correct: Vec<bool> =
            questions.par_iter().map(|(_, [a, b, c, d])| self.answer_analogy([*a, *b, *c]) == *d).collect();
        for ((section, _), correct) in questions.iter().zip(&correct) {
            if let Some(section) = sections.get_mut(*section) {
                section.num_correct += usize::from(*correct);
                section.num_questions += 1;
            }
        }
        let num_correct = correct.iter().filter(|c| **c).count();
        Ok(AnalogyResult {
            accuracy: num_correct as f64 / questions.len() as f64,
            num_questions: questions.len(),
            num_oov,
            sections,
        })
    }

    /// The id of the word nearest to b − a + c, other than these.
    fn answer_analogy(&self, [a, b, c]: [u32; 3]) -> u32 {
        let rows = self.normalized();
        let row = |id: u32| &rows[id as usize * self.vector_size..(id as usize + 1) * self.vector_size];
        let query = normalize((0..self.vector_size).map(|i| row(b)[i] - row(a)[i] + row(c)[i]).collect());
        let mut best = (f32::MIN, u32::MAX);
        for (id, other) in rows.chunks(self.vector_size).enumerate() {
            let score: f32 = other.iter().zip(&query).map(|(x, y)| x * y).sum();
            if score > best.0 && ![a, b, c].contains(&(id as u32)) {
                best = (score, id as u32);
            }
        }
        best.1
    }
}
