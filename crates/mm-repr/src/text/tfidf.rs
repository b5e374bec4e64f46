//! TF-IDF vectors over words, word pairs and character trigrams: nothing is trained, and hard to beat on few rows.
//!
//! *A statistical interpretation of term specificity and its application in retrieval* (Spärck Jones, 1972),
//! <https://doi.org/10.1108/eb026526>.

use super::{source::read_normalized_text, word_tokens::word_tokens};
use mm_core::{Error, ProcessContext, Processor, Result, Source, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The terms of a [`TfidfProcessor`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TfidfConfig {
    /// Terms: `word`, `two words`, and character trigrams as `#abc`.
    pub terms: Vec<String>,
    /// Inverse document frequency of each term; all 1 if empty.
    #[serde(default)]
    pub idf: Vec<f32>,
}

/// While fitting, terms that occurred once are dropped when there are more than this many, so that memory stays
/// bounded.
const MAX_CANDIDATES: usize = 2_000_000;

impl TfidfConfig {
    /// Takes the terms that occur in most texts, at most `max_terms`, and in at least two texts. A third of them are
    /// trigrams, which also match words that were not in the training texts.
    pub fn fit<'a>(texts: impl Iterator<Item = &'a str>, max_terms: usize) -> Self {
        let mut document_counts: HashMap<String, usize> = HashMap::new();
        let mut documents = 0usize;
        for text in texts {
            documents += 1;
            let mut terms: Vec<String> = terms(text);
            terms.sort_unstable();
            terms.dedup();
            terms.into_iter().for_each(|t| *document_counts.entry(t).or_default() += 1);
            if document_counts.len() > MAX_CANDIDATES {
                document_counts.retain(|_, c| *c > 1);
            }
        }
        let mut terms: Vec<(String, usize)> = document_counts.into_iter().filter(|(_, c)| *c >= 2).collect();
        terms.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let (trigrams, words): (Vec<_>, Vec<_>) = terms.into_iter().partition(|(t, _)| t.starts_with('#'));
        let max_trigrams = max_terms / 3;
        let terms = words.into_iter().take(max_terms - max_trigrams).chain(trigrams.into_iter().take(max_trigrams));
        let idf = |count: usize| ((1.0 + documents as f32) / (1.0 + count as f32)).ln() + 1.0;
        let (terms, idf) = terms.map(|(t, c)| (t, idf(c))).unzip();
        Self { terms, idf }
    }
}

/// All terms of a text: words, pairs of neighboring words, and the trigrams of each word with `_` at its ends.
fn terms(text: &str) -> Vec<String> {
    let words: Vec<String> = word_tokens(text).collect();
    let mut terms = words.clone();
    terms.extend(words.windows(2).map(|w| w.join(" ")));
    for word in &words {
        let chars: Vec<char> = std::iter::once('_').chain(word.chars()).chain(['_']).collect();
        terms.extend(chars.windows(3).map(|w| std::iter::once('#').chain(w.iter().copied()).collect::<String>()));
    }
    terms
}

/// A text → its TF-IDF vector `[terms]`, of length √terms.
pub struct TfidfProcessor {
    indices: HashMap<String, usize>,
    idf: Vec<f32>,
}

impl TfidfProcessor {
    /// A processor with these terms.
    ///
    /// # Errors
    /// If there are no terms, or `idf` has another length.
    pub fn new(mut config: TfidfConfig) -> Result<Self> {
        if config.idf.is_empty() {
            config.idf = vec![1.0; config.terms.len()];
        }
        if config.terms.len() != config.idf.len() || config.terms.is_empty() {
            let found = format!("{} terms and {} idf values", config.terms.len(), config.idf.len());
            return Err(Error::config("tfidf.terms", found, "as many of each, at least one"));
        }
        Ok(Self { indices: config.terms.into_iter().zip(0..).collect(), idf: config.idf })
    }

    /// Number of terms.
    pub fn num_terms(&self) -> i64 {
        self.idf.len() as i64
    }
}

impl Processor for TfidfProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let mut values = vec![0f32; self.idf.len()];
        for term in terms(&read_normalized_text(source)?) {
            if let Some(index) = self.indices.get(&term) {
                values[*index] += 1.0;
            }
        }
        for (value, idf) in values.iter_mut().zip(&self.idf) {
            if *value > 0.0 {
                *value = (1.0 + value.ln()) * idf;
            }
        }
        let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        if norm > 0.0 {
            let scale = (values.len() as f32).sqrt() / norm;
            values.iter_mut().for_each(|v| *v *= scale);
        }
        Tensor::from_slice(&values)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn token_names(&self, _source: &Source) -> Result<Vec<String>> {
        let mut terms: Vec<(&String, usize)> = self.indices.iter().map(|(t, n)| (t, *n)).collect();
        terms.sort_unstable_by_key(|(_, n)| *n);
        Ok(terms.into_iter().map(|(t, _)| t.clone()).collect())
    }

    fn fingerprint(&self) -> String {
        let mut terms: Vec<&String> = self.indices.keys().collect();
        terms.sort();
        format!("tfidf {}", blake3::hash(format!("{terms:?}").as_bytes()).to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_terms_weigh_more_and_unknown_words_match_by_trigrams() {
        let texts = ["the cat sat", "the dog sat", "the cats ran", "the dogs ran"];
        let tfidf = TfidfProcessor::new(TfidfConfig::fit(texts.into_iter(), 60)).unwrap();
        let vector = |t: &str| {
            tfidf.process(&Source::Text(t.into()), &mut ProcessContext::eval()).unwrap().to_vec::<f32>().unwrap()
        };
        let value = |v: &[f32], term: &str| v[tfidf.indices[term]];
        let cat = vector("the cat sat");
        assert!(value(&cat, "sat") > value(&cat, "the") && value(&cat, "#cat") > 0.0);
        assert!((cat.iter().map(|v| v * v).sum::<f32>() - cat.len() as f32).abs() < 1e-2);
        assert!(value(&vector("catcher"), "#cat") > 0.0);
        assert!(vector("").iter().all(|v| *v == 0.0));
    }
}
