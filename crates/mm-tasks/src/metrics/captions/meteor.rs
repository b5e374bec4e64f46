//! METEOR with exact, stem and synonym matches. The original's paraphrase tables are left out.

use super::ngrams::CaptionPair;
use crate::{Error, Result};
use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

/// A word without its ending: plural, -ing, -ed, -ly; a reduced form of the algorithm in *An algorithm for suffix
/// stripping* (Porter, 1980).
fn stem(word: &str) -> &str {
    for (suffix, min_chars) in [("ing", 3), ("edly", 3), ("ies", 2), ("es", 3), ("ed", 3), ("ly", 3), ("s", 3)] {
        if let Some(start) = word.strip_suffix(suffix)
            && start.chars().count() >= min_chars
            && !(suffix == "s" && start.ends_with('s'))
        {
            return start;
        }
    }
    word
}

/// Synonyms by WordNet's synsets (<https://wordnet.princeton.edu>): of each word the part of speech and the offset of
/// its synsets.
pub struct Synonyms(HashMap<String, BTreeSet<(char, u32)>>);

const INDEX_FILES: [&str; 4] = ["index.noun", "index.verb", "index.adj", "index.adv"];

impl Synonyms {
    /// Reads WordNet's `index.noun`, `index.verb`, `index.adj` and `index.adv` from a folder, at any depth.
    ///
    /// # Errors
    /// When the folder cannot be read or holds none of them.
    pub fn open(folder: &Path) -> Result<Self> {
        let failed = |path: &Path, cause: mm_core::Cause| Error::file(path, cause);
        let mut synsets: HashMap<String, BTreeSet<(char, u32)>> = HashMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(|e| failed(&folder, e.into()))? {
                let path = entry.map_err(|e| failed(&folder, e.into()))?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| INDEX_FILES.contains(&n)) {
                    let text = std::fs::read(&path).map_err(|e| failed(&path, e.into()))?;
                    Self::parse_index(&String::from_utf8_lossy(&text), &mut synsets);
                }
            }
        }
        if synsets.is_empty() {
            return Err(Error::file(folder, format!("found none of WordNet's {}", INDEX_FILES.join(", "))));
        }
        Ok(Self(synsets))
    }

    /// Lines are: lemma, part of speech, number of synsets n, …, n offsets; lines of the license begin with a space.
    fn parse_index(text: &str, synsets: &mut HashMap<String, BTreeSet<(char, u32)>>) {
        for line in text.lines().filter(|l| !l.starts_with(' ')) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let count = fields.get(2).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
            if let Some(part_of_speech) = fields.get(1).and_then(|k| k.chars().next())
                && count < fields.len()
            {
                let offsets = fields[fields.len() - count..].iter().filter_map(|n| n.parse().ok());
                synsets.entry(fields[0].to_owned()).or_default().extend(offsets.map(|n| (part_of_speech, n)));
            }
        }
    }

    /// Whether two words, or their stems, share a synset.
    fn are_synonyms(&self, a: &str, b: &str) -> bool {
        let synsets = |word: &str| self.0.get(word).or_else(|| self.0.get(stem(word)));
        synsets(a).zip(synsets(b)).is_some_and(|(a, b)| !a.is_disjoint(b))
    }
}

/// METEOR with α = 0.9, β = 3 and γ = 0.5: the best reference of each caption, the mean over captions. Words match
/// exactly, then by stem, then, with `synonyms`, by synset. Source: *METEOR: An Automatic Metric for MT Evaluation with
/// Improved Correlation with Human Judgments* (Banerjee & Lavie, 2005, <https://aclanthology.org/W05-0909/>).
pub fn meteor(pairs: &[CaptionPair], synonyms: Option<&Synonyms>) -> f64 {
    let best = |(caption, references): &CaptionPair| {
        references.iter().map(|r| score(&align(caption, r, synonyms), r.len())).fold(0.0, f64::max)
    };
    pairs.iter().map(best).sum::<f64>() / pairs.len().max(1) as f64
}

/// For each token of the caption the position of the token of the reference that it matches.
fn align(caption: &[String], reference: &[String], synonyms: Option<&Synonyms>) -> Vec<Option<usize>> {
    let mut alignment: Vec<Option<usize>> = vec![None; caption.len()];
    let mut free = vec![true; reference.len()];
    for stage in 0..=2 {
        for (n, word) in caption.iter().enumerate() {
            if alignment[n].is_some() {
                continue;
            }
            let matches = |r: &String| match stage {
                0 => r == word,
                1 => stem(r) == stem(word),
                _ => synonyms.is_some_and(|s| s.are_synonyms(r, word)),
            };
            // The position after the previous word's match is preferred, so that chunks are not split.
            let next = n.checked_sub(1).and_then(|p| alignment[p]).map(|m| m + 1);
            let next = next.filter(|m| *m < reference.len() && free[*m] && matches(&reference[*m]));
            if let Some(m) = next.or_else(|| (0..reference.len()).find(|m| free[*m] && matches(&reference[*m]))) {
                alignment[n] = Some(m);
                free[m] = false;
            }
        }
    }
    alignment
}

fn score(alignment: &[Option<usize>], reference_length: usize) -> f64 {
    let matches = alignment.iter().flatten().count() as f64;
    if matches == 0.0 {
        return 0.0;
    }
    let mut chunks = 0.0;
    let mut previous: Option<usize> = None;
    for position in alignment {
        if let Some(m) = position
            && previous.is_none_or(|p| p + 1 != *m)
        {
            chunks += 1.0;
        }
        previous = *position;
    }
    let (precision, recall) = (matches / alignment.len() as f64, matches / reference_length as f64);
    let f_mean = precision * recall / (0.9 * precision + 0.1 * recall);
    f_mean * (1.0 - 0.5 * (chunks / matches).powi(3))
}
