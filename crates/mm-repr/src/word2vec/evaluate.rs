//! How well vectors say what people say: similarity of pairs (WordSim-353, SimLex-999) and analogies (Mikolov 2013).

use super::{WordVectors, at, unit};
use crate::{Error, Result};
use rayon::prelude::*;
use std::{collections::HashMap, path::Path};

/// Agreement with people on pairs of words.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct PairResult {
    /// Rank correlation (Spearman 1904).
    pub spearman: f64,
    /// Pairs that were counted.
    pub pairs: usize,
    /// Pairs with a word that is not known, which were not.
    pub unknown: usize,
}

/// Share of right answers to analogies.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct AnalogyResult {
    /// Of all.
    pub accuracy: f64,
    /// Questions that were counted.
    pub questions: usize,
    /// Questions with a word that is not known, which were not.
    pub unknown: usize,
    /// Name, right, questions of each section.
    pub sections: Vec<(String, usize, usize)>,
}

/// Ranks from one, ties sharing their mean.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let same = order[from..].iter().take_while(|i| values[**i] == values[order[from]]).count();
        let mean = from as f64 + (same as f64 + 1.0) / 2.0;
        order[from..from + same].iter().for_each(|i| ranks[*i] = mean);
        from += same;
    }
    ranks
}

pub(super) fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len().max(1) as f64;
    let (ma, mb) = (mean(&a), mean(&b));
    let covariance: f64 = a.iter().zip(&b).map(|(x, y)| (x - ma) * (y - mb)).sum();
    let spread = |v: &[f64], m: f64| v.iter().map(|x| (x - m).powi(2)).sum::<f64>();
    covariance / (spread(&a, ma) * spread(&b, mb)).sqrt()
}

impl WordVectors {
    /// Words by their upper case, the more frequent first: test sets write names their own way.
    fn folded(&self) -> HashMap<String, u32> {
        let mut folded = HashMap::new();
        for (id, word) in self.vocabulary.words.iter().enumerate() {
            folded.entry(word.to_uppercase()).or_insert(id as u32);
        }
        folded
    }

    /// A file of pairs: two words and a number between tabs a line, `#` before remarks (as gensim ships WordSim-353 and SimLex-999).
    pub fn evaluate_word_pairs(&self, path: &Path) -> Result<PairResult> {
        let text = std::fs::read_to_string(path).map_err(at(path))?;
        let folded = self.folded();
        let (mut ours, mut theirs, mut unknown) = (Vec::new(), Vec::new(), 0);
        for line in text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()) {
            let cells: Vec<&str> = line.split('\t').map(str::trim).collect();
            let (Some(a), Some(b), Some(score)) =
                (cells.first(), cells.get(1), cells.get(2).and_then(|c| c.parse().ok()))
            else {
                continue;
            };
            let find = |w: &str| folded.get(&w.to_uppercase()).map(|id| *id as usize);
            match (find(a), find(b)) {
                (Some(a), Some(b)) => {
                    let rows = self.unit();
                    let row = |i: usize| &rows[i * self.vector_size..(i + 1) * self.vector_size];
                    ours.push(row(a).iter().zip(row(b)).map(|(x, y)| f64::from(x * y)).sum());
                    theirs.push(score);
                }
                _ => unknown += 1,
            }
        }
        if ours.len() < 2 {
            return Err(Error::folder(
                path,
                format!("{} pairs of known words, {unknown} with unknown ones: nothing to correlate", ours.len()),
            ));
        }
        Ok(PairResult { spearman: spearman(&ours, &theirs), pairs: ours.len(), unknown })
    }

    /// A file of analogies: four words a line, `: name` before each section (as gensim ships Google's).
    pub fn evaluate_word_analogies(&self, path: &Path) -> Result<AnalogyResult> {
        let text = std::fs::read_to_string(path).map_err(at(path))?;
        let folded = self.folded();
        let (mut questions, mut unknown, mut names) = (Vec::new(), 0, Vec::new());
        for line in text.lines() {
            if let Some(name) = line.strip_prefix(':') {
                names.push(name.trim().to_owned());
                continue;
            }
            let ids: Vec<Option<u32>> =
                line.split_whitespace().map(|w| folded.get(&w.to_uppercase()).copied()).collect();
            match ids[..] {
                [Some(a), Some(b), Some(c), Some(d)] => questions.push((names.len().max(1) - 1, [a, b, c, d])),
                [_, _, _, _] => unknown += 1,
                _ => {}
            }
        }
        if questions.is_empty() {
            return Err(Error::folder(path, format!("no question of known words, {unknown} with unknown ones")));
        }
        let rows = self.unit();
        let row = |i: u32| &rows[i as usize * self.vector_size..(i as usize + 1) * self.vector_size];
        let right: Vec<bool> = questions
            .par_iter()
            .map(|(_, [a, b, c, d])| {
                let wanted = unit((0..self.vector_size).map(|i| row(*b)[i] - row(*a)[i] + row(*c)[i]).collect());
                let mut best = (f32::MIN, u32::MAX);
                for (i, other) in rows.chunks(self.vector_size).enumerate() {
                    let score: f32 = other.iter().zip(&wanted).map(|(x, y)| x * y).sum();
                    if score > best.0 && ![*a, *b, *c].contains(&(i as u32)) {
                        best = (score, i as u32);
                    }
                }
                best.1 == *d
            })
            .collect();
        let mut sections: Vec<(String, usize, usize)> = names.into_iter().map(|n| (n, 0, 0)).collect();
        for ((section, _), right) in questions.iter().zip(&right) {
            if let Some(entry) = sections.get_mut(*section) {
                entry.1 += usize::from(*right);
                entry.2 += 1;
            }
        }
        let hits = right.iter().filter(|r| **r).count();
        Ok(AnalogyResult {
            accuracy: hits as f64 / questions.len() as f64,
            questions: questions.len(),
            unknown,
            sections,
        })
    }
}
