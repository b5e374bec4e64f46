//! A corpus on disk becomes numbers on disk: one sentence a line, words between white space; read twice, never held in memory.

use super::{Word2VecConfig, at};
use crate::Result;
use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
};

/// Stands between sentences in the file of numbers.
pub(super) const END: u32 = u32::MAX;

/// Longest sentence; a longer line is cut into several (as gensim does).
const LONGEST: usize = 10_000;

/// The words of a corpus, most frequent first, and how often each is there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Vocabulary {
    /// The words.
    pub words: Vec<String>,
    /// How often each is there.
    pub counts: Vec<u64>,
    pub(super) index: HashMap<String, u32>,
}

impl Vocabulary {
    pub(super) fn new(words: Vec<String>, counts: Vec<u64>) -> Self {
        let index = words.iter().enumerate().map(|(i, w)| (w.clone(), i as u32)).collect();
        Self { words, counts, index }
    }

    /// The number of a word.
    pub fn id(&self, word: &str) -> Option<u32> {
        self.index.get(word).copied()
    }

    /// All occurrences of all its words.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Calls `each` with the words of every line; `told` hears how many bytes were read.
fn lines(files: &[PathBuf], told: &mut dyn FnMut(u64), each: &mut dyn FnMut(&[&str]) -> Result<()>) -> Result<()> {
    let mut line = Vec::new();
    for path in files {
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(at(path))?);
        let mut read = 0u64;
        loop {
            line.clear();
            let count = reader.read_until(b'\n', &mut line).map_err(at(path))?;
            if count == 0 {
                break;
            }
            read += count as u64;
            // What is no UTF-8 is replaced, as gensim's readers do.
            let text = String::from_utf8_lossy(&line);
            let words: Vec<&str> = text.split_whitespace().collect();
            for piece in words.chunks(LONGEST) {
                each(piece)?;
            }
            if read > 1 << 22 {
                told(read);
                read = 0;
            }
        }
        told(read);
    }
    Ok(())
}

/// Joins of two words that stand together far more often than each alone would have it (Mikolov 2013).
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Phrases {
    pairs: HashMap<(String, String), f64>,
}

impl Phrases {
    /// Pairs that are there at least `min_count` times and score above `threshold`: (count − min) · vocabulary / (count of a · of b).
    pub fn fit(files: &[PathBuf], min_count: u64, threshold: f64) -> Result<Self> {
        let mut words: HashMap<String, u64> = HashMap::new();
        let mut pairs: HashMap<(String, String), u64> = HashMap::new();
        lines(files, &mut |_| {}, &mut |line| {
            for word in line {
                *words.entry((*word).to_owned()).or_default() += 1;
            }
            for pair in line.windows(2) {
                *pairs.entry((pair[0].to_owned(), pair[1].to_owned())).or_default() += 1;
            }
            Ok(())
        })?;
        // gensim counts the pairs among the vocabulary too.
        let entries = (words.len() + pairs.len()) as f64;
        let scored = pairs.into_iter().filter(|(_, count)| *count >= min_count).filter_map(|(pair, count)| {
            let alone = words[&pair.0] as f64 * words[&pair.1] as f64;
            let score = (count - min_count) as f64 / alone * entries;
            (score > threshold).then_some((pair, score))
        });
        Ok(Self { pairs: scored.collect() })
    }

    /// How many pairs there are.
    pub fn count(&self) -> usize {
        self.pairs.len()
    }

    /// The score of two words as a pair, if they are one.
    pub fn score(&self, first: &str, second: &str) -> Option<f64> {
        self.pairs.get(&(first.to_owned(), second.to_owned())).copied()
    }

    /// A sentence with its pairs joined by `_`, from the left.
    pub fn join(&self, words: &[&str]) -> Vec<String> {
        let mut out = Vec::with_capacity(words.len());
        let mut at = 0;
        while at < words.len() {
            if at + 1 < words.len() && self.score(words[at], words[at + 1]).is_some() {
                out.push(format!("{}_{}", words[at], words[at + 1]));
                at += 2;
            } else {
                out.push(words[at].to_owned());
                at += 1;
            }
        }
        out
    }
}

/// The corpus with words as numbers, [`END`] after each sentence.
pub(super) struct Encoded {
    pub(super) vocabulary: Vocabulary,
    /// The file of little-endian u32.
    pub(super) file: PathBuf,
}

/// Counts the words, then writes the corpus as numbers into `work`.
pub(super) fn encode(
    files: &[PathBuf],
    config: &Word2VecConfig,
    phrases: Option<&Phrases>,
    work: &Path,
    told: &mut dyn FnMut(&str, u64, u64),
) -> Result<Encoded> {
    let size = |path: &PathBuf| std::fs::metadata(path).map(|m| m.len()).map_err(at(path));
    let bytes: u64 = files.iter().map(size).sum::<Result<u64>>()?;
    let mut counts: HashMap<String, u64> = HashMap::new();
    let (mut read, mut least) = (0, 1);
    lines(
        files,
        &mut |n| {
            read += n;
            told("counting words", read, bytes)
        },
        &mut |line| {
            let mut count = |word: &str| match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_owned(), 1)),
            };
            match phrases {
                None => line.iter().for_each(|w| count(w)),
                Some(p) => p.join(line).iter().for_each(|w| count(w)),
            }
            // A vocabulary that grows without end loses its rarest words, as in the original program.
            if counts.len() > 20_000_000 {
                counts.retain(|_, n| *n > least);
                least += 1;
            }
            Ok(())
        },
    )?;
    let mut kept: Vec<(String, u64)> = counts.into_iter().filter(|(_, n)| *n >= config.min_count).collect();
    kept.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (words, counts) = kept.into_iter().unzip();
    let vocabulary = Vocabulary::new(words, counts);
    let file = work.join("corpus.u32");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&file).map_err(at(&file))?);
    read = 0;
    lines(
        files,
        &mut |n| {
            read += n;
            told("numbering words", read, bytes)
        },
        &mut |line| {
            let mut empty = true;
            let mut write = |word: &str| -> Result<()> {
                if let Some(id) = vocabulary.id(word) {
                    empty = false;
                    out.write_all(&id.to_le_bytes()).map_err(at(&file))?;
                }
                Ok(())
            };
            match phrases {
                None => line.iter().try_for_each(|w| write(w))?,
                Some(p) => p.join(line).iter().try_for_each(|w| write(w))?,
            }
            if !empty {
                out.write_all(&END.to_le_bytes()).map_err(at(&file))?;
            }
            Ok(())
        },
    )?;
    out.flush().map_err(at(&file))?;
    Ok(Encoded { vocabulary, file })
}
