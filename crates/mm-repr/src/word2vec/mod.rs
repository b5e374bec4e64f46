//! Word2Vec (Mikolov 2013) and fastText (Bojanowski 2017): words become vectors by what stands around them. Learned from files that may
//! be larger than memory, by all threads or deterministically by one; read and written in the formats of the original programs.

mod corpus;
mod encoder;
mod evaluate;
mod formats;
mod train;

pub use corpus::{Phrases, Vocabulary};
pub use encoder::{Weighting, WordVectorsEncoder, WordVectorsProcessor};
pub use evaluate::{AnalogyResult, PairResult};
pub use formats::Format;

use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{OnceLock, atomic::AtomicBool},
};
use train::{LANES, Matrices, Plan};

/// What is predicted from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Architecture {
    /// Each word of a window speaks for the word in its middle.
    #[default]
    SkipGram,
    /// The mean of a window speaks for the word in its middle.
    Cbow,
}

/// n-grams of letters that speak for a word beside the word itself, so that unseen words have vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SubwordConfig {
    /// Shortest n-gram, in letters.
    pub min_n: usize,
    /// Longest n-gram, in letters.
    pub max_n: usize,
    /// Rows that n-grams are hashed into.
    pub bucket: u32,
}

impl Default for SubwordConfig {
    fn default() -> Self {
        Self { min_n: 3, max_n: 6, bucket: 2_000_000 }
    }
}

impl SubwordConfig {
    /// The rows (below `bucket`) of a word's n-grams, as fastText hashes them.
    pub fn grams<'a>(&'a self, word: &str) -> impl Iterator<Item = u32> + use<'a> {
        let marked = format!("<{word}>");
        let starts: Vec<usize> = marked.char_indices().map(|(i, _)| i).chain([marked.len()]).collect();
        let letters = starts.len() - 1;
        let hash = move |from: usize, to: usize| {
            // FNV-1a over signed bytes, as in fastText.
            marked.as_bytes()[starts[from]..starts[to]]
                .iter()
                .fold(2_166_136_261u32, |h, b| (h ^ i32::from(*b as i8) as u32).wrapping_mul(16_777_619))
        };
        (0..letters)
            .flat_map(move |from| (self.min_n..=self.max_n).map(move |length| (from, from + length)))
            // A single letter that is only the mark of an end says nothing.
            .filter(move |(from, to)| *to <= letters && !(to - from == 1 && (*from == 0 || *to == letters)))
            .map(move |(from, to)| hash(from, to) % self.bucket.max(1))
    }
}

/// How words are learned; the defaults are gensim's, but for skip-gram.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Word2VecConfig {
    /// What is predicted from what.
    pub architecture: Architecture,
    /// Width of a vector.
    pub vector_size: usize,
    /// Words on each side that count, at most.
    pub window: usize,
    /// Whether a window's reach is drawn anew at each place (near words then count more).
    pub shrink_windows: bool,
    /// Wrong words for each right one; 0: hierarchical softmax instead.
    pub negative: usize,
    /// Wrong words are drawn by their count to this power.
    pub ns_exponent: f64,
    /// Whether the words of a window share their wrong words (skip-gram): twice as fast, for a little of the quality.
    pub share_negatives: bool,
    /// Words that are there less often are left out.
    pub min_count: u64,
    /// Words of a larger share than this are left out at random, the more the larger; 0: never.
    pub sample: f64,
    /// Passes over the corpus.
    pub epochs: usize,
    /// Learning rate at the beginning.
    pub alpha: f64,
    /// Learning rate at the end.
    pub min_alpha: f64,
    /// Threads; with one the result is a function of corpus, settings and seed.
    pub workers: usize,
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// n-grams of letters, where unseen words shall have vectors.
    pub subwords: Option<SubwordConfig>,
}

impl Default for Word2VecConfig {
    fn default() -> Self {
        Self {
            architecture: Architecture::SkipGram,
            vector_size: 100,
            window: 5,
            shrink_windows: true,
            negative: 5,
            ns_exponent: 0.75,
            share_negatives: true,
            min_count: 5,
            sample: 1e-3,
            epochs: 5,
            alpha: 0.025,
            min_alpha: 1e-4,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            seed: 0,
            subwords: None,
        }
    }
}

impl Word2VecConfig {
    fn check(&self) -> Result<()> {
        let bad = |field: &str, found: String, wanted: &str| Err(mm_core::Error::config(field, found, wanted).into());
        if !(1..=10_000).contains(&self.vector_size) {
            return bad("vector_size", self.vector_size.to_string(), "1 to 10,000");
        }
        if !(1..=train::MOST_WINDOW).contains(&self.window) || self.epochs == 0 {
            return bad(
                "window, epochs",
                format!("{}, {}", self.window, self.epochs),
                "1 to 100 words on each side, at least one pass",
            );
        }
        if !(self.alpha > 0.0 && self.alpha <= 1.0 && (0.0..=self.alpha).contains(&self.min_alpha)) {
            return bad(
                "alpha, min_alpha",
                format!("{}, {}", self.alpha, self.min_alpha),
                "alpha in (0, 1] and min_alpha in [0, alpha]",
            );
        }
        if !(0.0..=1.0).contains(&self.sample) {
            return bad("sample", self.sample.to_string(), "0 to 1");
        }
        match &self.subwords {
            Some(s) if s.min_n == 0 || s.max_n < s.min_n || s.bucket == 0 => {
                bad("subwords", format!("{s:?}"), "1 ≤ min_n ≤ max_n, and bucket")
            }
            _ => Ok(()),
        }
    }
}

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// Bytes of the corpus that were read, of all.
    Reading(u64, u64),
    /// Words that were learned from, of all.
    Training(u64, u64),
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |e| Error::folder(&path, e)
}

/// Words and their vectors.
#[derive(Debug, Clone, Default)]
pub struct WordVectors {
    /// The words and their counts (1 where a file does not tell them).
    pub vocabulary: Vocabulary,
    /// Width of a vector.
    pub vector_size: usize,
    /// `[words + bucket, vector_size]`: words, then n-grams.
    input: Vec<f32>,
    /// `[words, vector_size]` of the other side of the prediction, where it is known.
    output: Vec<f32>,
    /// Whether negatives or a tree stood on the other side, for fastText's format.
    negative: bool,
    architecture: Architecture,
    subwords: Option<SubwordConfig>,
    /// Rows of unit length for comparing.
    unit: OnceLock<Vec<f32>>,
}

/// What a training that was interrupted left.
#[derive(Serialize, Deserialize)]
struct State {
    config: Word2VecConfig,
    fingerprint: String,
    epochs_done: usize,
}

impl WordVectors {
    /// Learns from files (one sentence a line, words between white space). `work` keeps what is done after each pass: called again
    /// with the same files and settings it goes on from there. `None` when it was stopped.
    pub fn train(
        files: &[PathBuf],
        config: &Word2VecConfig,
        phrases: Option<&Phrases>,
        work: &Path,
        stop: &AtomicBool,
        told: &(dyn Fn(Progress) + Sync),
    ) -> Result<Option<Self>> {
        config.check()?;
        std::fs::create_dir_all(work).map_err(at(work))?;
        let (state_file, saved) = (work.join("state.json"), work.join("matrices.f32"));
        let mut about = blake3::Hasher::new();
        for file in files {
            let meta = std::fs::metadata(file).map_err(at(file))?;
            about.update(format!("{} {} {:?} ", file.display(), meta.len(), meta.modified().ok()).as_bytes());
        }
        about.update(format!("{:?}", phrases.map(Phrases::count)).as_bytes());
        let fingerprint = about.finalize().to_hex().to_string();
        let encoded =
            corpus::encode(files, config, phrases, work, &mut |_, done, all| told(Progress::Reading(done, all)))?;
        let vocabulary = encoded.vocabulary;
        let words = vocabulary.words.len();
        if words < 2 {
            return Err(Error::folder(
                files.first().map_or(work, PathBuf::as_path),
                format!(
                    "{words} words are there at least {} times; wanted two or more (min_count says how often)",
                    config.min_count
                ),
            ));
        }
        let plan = Plan::new(config, &vocabulary.words, &vocabulary.counts);
        let bucket = config.subwords.as_ref().map_or(0, |s| s.bucket as usize);
        let stride = config.vector_size.next_multiple_of(LANES);
        let mut matrices =
            Matrices { input: vec![0.0; (words + bucket) * stride], output: vec![0.0; words * stride], stride };
        let mut random = train::Random::new(config.seed ^ 0x5eed);
        for row in matrices.input.chunks_mut(stride) {
            for value in &mut row[..config.vector_size] {
                // Twice as wide as the original program's, as gensim begins: worth a little to bags of words.
                *value = ((random.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) / config.vector_size as f32;
            }
        }
        let mut begin = 0;
        if let Ok(text) = std::fs::read(&state_file) {
            let state: State = serde_json::from_slice(&text).map_err(|e| Error::folder(&state_file, e))?;
            if state.fingerprint != fingerprint || state.config != *config {
                return Err(Error::folder(
                    work,
                    "holds work of another corpus or other settings; delete it to begin anew",
                ));
            }
            let bytes = std::fs::read(&saved).map_err(at(&saved))?;
            let (input, output) = (matrices.input.len(), matrices.output.len());
            if bytes.len() != (input + output) * 4 {
                return Err(Error::folder(
                    &saved,
                    "is of another size than the work that it belongs to; delete the folder to begin anew",
                ));
            }
            let mut numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            matrices.input.iter_mut().chain(&mut matrices.output).for_each(|v| *v = numbers.next().unwrap_or(0.0));
            begin = state.epochs_done;
        }
        let corpus = map(&encoded.file)?;
        let all = vocabulary.total() * config.epochs as u64;
        for epoch in begin..config.epochs {
            let told = |done| told(Progress::Training(done, all));
            if !train::epoch(&plan, &mut matrices, corpus.numbers(), epoch, stop, &told) {
                return Ok(None);
            }
            if epoch + 1 < config.epochs {
                let fresh = work.join("matrices.new");
                let mut out = std::io::BufWriter::new(std::fs::File::create(&fresh).map_err(at(&fresh))?);
                for value in matrices.input.iter().chain(&matrices.output) {
                    out.write_all(&value.to_le_bytes()).map_err(at(&fresh))?;
                }
                out.flush().map_err(at(&fresh))?;
                std::fs::rename(&fresh, &saved).map_err(at(&saved))?;
                let state = State { config: config.clone(), fingerprint: fingerprint.clone(), epochs_done: epoch + 1 };
                mm_core::checkpoint::write_file(&state_file, &serde_json::to_vec(&state).unwrap_or_default())?;
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return Ok(None);
                }
            }
        }
        drop(plan);
        let narrow = |rows: Vec<f32>| -> Vec<f32> {
            if stride == config.vector_size {
                rows
            } else {
                rows.chunks(stride).flat_map(|r| &r[..config.vector_size]).copied().collect()
            }
        };
        Ok(Some(Self {
            vocabulary,
            vector_size: config.vector_size,
            input: narrow(matrices.input),
            output: narrow(matrices.output),
            negative: config.negative > 0,
            architecture: config.architecture,
            subwords: config.subwords.clone(),
            unit: OnceLock::new(),
        }))
    }

    fn row(&self, number: usize) -> &[f32] {
        &self.input[number * self.vector_size..(number + 1) * self.vector_size]
    }

    /// A word's vector: its own, or with n-grams the mean of its own and theirs. `None` for a word that is not known and has none.
    pub fn vector(&self, word: &str) -> Option<Vec<f32>> {
        let known = self.vocabulary.id(word).map(|id| id as usize);
        let Some(subwords) = &self.subwords else { return known.map(|id| self.row(id).to_vec()) };
        let rows: Vec<usize> =
            known.into_iter().chain(subwords.grams(word).map(|g| self.vocabulary.words.len() + g as usize)).collect();
        if rows.is_empty() {
            return None;
        }
        let mut sum = vec![0f32; self.vector_size];
        for row in &rows {
            sum.iter_mut().zip(self.row(*row)).for_each(|(s, v)| *s += v);
        }
        sum.iter_mut().for_each(|v| *v /= rows.len() as f32);
        Some(sum)
    }

    /// Every word's vector at unit length, made at the first comparison.
    fn unit(&self) -> &[f32] {
        self.unit.get_or_init(|| {
            let rows: Vec<Vec<f32>> = self
                .vocabulary
                .words
                .par_iter()
                .map(|w| unit(self.vector(w).unwrap_or_else(|| vec![0.0; self.vector_size])))
                .collect();
            rows.concat()
        })
    }

    /// The words nearest to a vector by cosine, best first, without some.
    pub fn similar_by_vector(&self, vector: &[f32], top: usize, without: &[&str]) -> Vec<(&str, f32)> {
        let wanted = unit(vector.to_vec());
        let without: Vec<u32> = without.iter().filter_map(|w| self.vocabulary.id(w)).collect();
        let mut scores: Vec<(u32, f32)> = self
            .unit()
            .par_chunks(self.vector_size)
            .enumerate()
            .map(|(i, row)| (i as u32, row.iter().zip(&wanted).map(|(a, b)| a * b).sum()))
            .filter(|(i, _)| !without.contains(i))
            .collect();
        let count = top.min(scores.len());
        if count > 0 && count < scores.len() {
            scores.select_nth_unstable_by(count - 1, |a, b| b.1.total_cmp(&a.1));
            scores.truncate(count);
        }
        scores.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        scores.into_iter().map(|(i, s)| (self.vocabulary.words[i as usize].as_str(), s)).collect()
    }

    /// The words most like a word.
    pub fn most_similar(&self, word: &str, top: usize) -> Result<Vec<(&str, f32)>> {
        Ok(self.similar_by_vector(&self.known(word)?, top, &[word]))
    }

    /// What is to `c` as `b` is to `a` (king − man + woman: `a` man, `b` king, `c` woman).
    pub fn analogy(&self, a: &str, b: &str, c: &str, top: usize) -> Result<Vec<(&str, f32)>> {
        let [from, to, by] = [a, b, c].map(|w| self.known(w).map(unit));
        let (from, to, by) = (from?, to?, by?);
        let wanted: Vec<f32> = to.iter().zip(&from).zip(&by).map(|((t, f), b)| t - f + b).collect();
        Ok(self.similar_by_vector(&wanted, top, &[a, b, c]))
    }

    fn known(&self, word: &str) -> Result<Vec<f32>> {
        self.vector(word).ok_or_else(|| {
            let near = self
                .vocabulary
                .words
                .iter()
                .max_by(|a, b| strsim::jaro_winkler(a, word).total_cmp(&strsim::jaro_winkler(b, word)));
            mm_core::Error::Sample(format!(
                "the word `{word}` is not known; did you mean `{}`?",
                near.map_or("", |w| w)
            ))
            .into()
        })
    }
}

fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|v| *v /= norm);
    }
    vector
}

/// A file of u32 in the system's memory of pages.
struct Mapped(memmap2::Mmap);

impl Mapped {
    fn numbers(&self) -> &[u32] {
        // SAFETY: any four bytes are a number; a mapping begins at a page.
        unsafe { self.0.align_to::<u32>().1 }
    }
}

fn map(file: &Path) -> Result<Mapped> {
    let open = std::fs::File::open(file).map_err(at(file))?;
    // SAFETY: the file is in this work folder, which one process alone writes.
    Ok(Mapped(unsafe { memmap2::Mmap::map(&open) }.map_err(at(file))?))
}

#[cfg(test)]
mod tests;
