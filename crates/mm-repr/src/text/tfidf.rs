//! A text as which words, pairs of words and pieces of words it has, each counted the more the fewer training texts have it (tf-idf,
//! Spärck Jones 1972): nothing to be learned, and hard to beat on few rows.

use mm_core::{Error, ProcessContext, Processor, Result, Source, Tensor};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What a [`TfidfProcessor`] knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TfidfConfig {
    /// The terms: `word`, `two words`, and pieces of three letters as `#abc`.
    pub terms: Vec<String>,
    /// For each term the logarithm of how rare it is; all count alike when empty.
    #[serde(default)]
    pub idf: Vec<f32>,
}

impl TfidfConfig {
    /// Takes the terms from texts: those that most texts have, so many at most, none that fewer than two have.
    pub fn fit<'a>(texts: impl Iterator<Item = &'a str>, most: usize) -> Self {
        let mut counts: HashMap<String, usize> = HashMap::new();
        let mut all = 0usize;
        for text in texts {
            all += 1;
            let mut own: Vec<String> = terms(text);
            own.sort_unstable();
            own.dedup();
            own.into_iter().for_each(|t| *counts.entry(t).or_default() += 1);
            // Memory stays bounded however many texts there are.
            if counts.len() > 2_000_000 {
                counts.retain(|_, c| *c > 1);
            }
        }
        let mut counted: Vec<(String, usize)> = counts.into_iter().filter(|(_, c)| *c >= 2).collect();
        counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        // Words and pairs first; a third is for pieces, which tell words that were never seen.
        let (pieces, words): (Vec<_>, Vec<_>) = counted.into_iter().partition(|(t, _)| t.starts_with('#'));
        let kept = words.into_iter().take(most - most / 3).chain(pieces.into_iter().take(most / 3));
        let (terms, idf) = kept.map(|(t, c)| (t, ((1.0 + all as f32) / (1.0 + c as f32)).ln() + 1.0)).unzip();
        Self { terms, idf }
    }
}

fn terms(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    let words: Vec<&str> = lower.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|w| !w.is_empty()).collect();
    let mut out: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    out.extend(words.windows(2).map(|w| w.join(" ")));
    for word in &words {
        let letters: Vec<char> = std::iter::once('_').chain(word.chars()).chain(['_']).collect();
        out.extend(letters.windows(3).map(|w| std::iter::once('#').chain(w.iter().copied()).collect()));
    }
    out
}

/// A text → `[terms]`, of unit length times the root of the number of terms.
pub struct TfidfProcessor {
    places: HashMap<String, usize>,
    idf: Vec<f32>,
}

impl TfidfProcessor {
    /// A processor over these terms.
    pub fn new(mut config: TfidfConfig) -> Result<Self> {
        if config.idf.is_empty() {
            config.idf = vec![1.0; config.terms.len()];
        }
        if config.terms.len() != config.idf.len() || config.terms.is_empty() {
            let found = format!("{} terms and {} idf values", config.terms.len(), config.idf.len());
            return Err(Error::config("tfidf.terms", found, "as many of each, at least one"));
        }
        Ok(Self { places: config.terms.into_iter().zip(0..).collect(), idf: config.idf })
    }

    /// Number of terms.
    pub fn dim(&self) -> i64 {
        self.idf.len() as i64
    }
}

impl Processor for TfidfProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let mut values = vec![0f32; self.idf.len()];
        for term in terms(&super::read(source)?) {
            if let Some(place) = self.places.get(&term) {
                values[*place] += 1.0;
            }
        }
        for (value, idf) in values.iter_mut().zip(&self.idf) {
            if *value > 0.0 {
                *value = (1.0 + value.ln()) * idf;
            }
        }
        let length = values.iter().map(|v| v * v).sum::<f32>().sqrt();
        if length > 0.0 {
            let scale = (values.len() as f32).sqrt() / length;
            values.iter_mut().for_each(|v| *v *= scale);
        }
        Tensor::from_slice(&values)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn token_names(&self, _source: &Source) -> Result<Vec<String>> {
        let mut terms: Vec<(&String, usize)> = self.places.iter().map(|(t, n)| (t, *n)).collect();
        terms.sort_unstable_by_key(|(_, n)| *n);
        Ok(terms.into_iter().map(|(t, _)| t.clone()).collect())
    }

    fn fingerprint(&self) -> String {
        let mut known: Vec<&String> = self.places.keys().collect();
        known.sort();
        format!("tfidf {}", blake3::hash(format!("{known:?}").as_bytes()).to_hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_terms_count_more_and_unknown_words_speak_through_their_pieces() {
        let texts = ["the cat sat", "the dog sat", "the cats ran", "the dogs ran"];
        let bag = TfidfProcessor::new(TfidfConfig::fit(texts.into_iter(), 60)).unwrap();
        let vector = |t: &str| {
            bag.process(&Source::Text(t.into()), &mut ProcessContext::eval()).unwrap().to_vec::<f32>().unwrap()
        };
        let of = |v: &[f32], term: &str| v[bag.places[term]];
        let cat = vector("the cat sat");
        assert!(of(&cat, "sat") > of(&cat, "the") && of(&cat, "#cat") > 0.0);
        assert!((cat.iter().map(|v| v * v).sum::<f32>() - cat.len() as f32).abs() < 1e-2);
        assert!(of(&vector("catcher"), "#cat") > 0.0);
        assert!(vector("").iter().all(|v| *v == 0.0));
    }
}
