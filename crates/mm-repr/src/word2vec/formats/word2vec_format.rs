//! word2vec's text and binary formats.

use crate::word2vec::{config::Architecture, vectors::WordVectors, vocabulary::Vocabulary};
use std::{borrow::Cow, collections::HashSet, io::Write, sync::OnceLock};

/// Most bytes of a word in the binary format.
const MAX_WORD_BYTES: usize = 4096;

/// Number of words and dimension in the first line, and where the rest begins.
fn read_header(bytes: &[u8], min_bytes_per_value: usize) -> Result<(usize, usize, usize), String> {
    let end = bytes.iter().position(|b| *b == b'\n').unwrap_or(bytes.len());
    let line = String::from_utf8_lossy(&bytes[..end]);
    let sizes: Vec<usize> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    let (2, [count, dim]) = (line.split_whitespace().count(), &sizes[..]) else {
        let found: String = line.trim().chars().take(60).collect();
        return Err(format!("header: found `{found}`, expected two integers: number of words and dimension"));
    };
    // Checked before allocating: the header may be wrong.
    if *dim == 0 || count.saturating_mul(*dim).saturating_mul(min_bytes_per_value) > bytes.len() {
        let size = bytes.len();
        return Err(format!("header: {count} words of dimension {dim} do not fit in its {size} bytes"));
    }
    Ok((*count, *dim, (end + 1).min(bytes.len())))
}

/// Words and their vectors as they are read. Of words that occur more than once the first counts, as in gensim.
struct Rows {
    dim: usize,
    words: Vec<String>,
    known: HashSet<String>,
    values: Vec<f32>,
    /// Words that were left out because they had occurred.
    repeated: Vec<String>,
    /// Number of words with bytes that are not UTF-8, which were replaced.
    not_utf8: usize,
}

impl Rows {
    fn new(count: usize, dim: usize) -> Self {
        let (words, known) = (Vec::with_capacity(count), HashSet::with_capacity(count));
        Self { dim, words, known, values: Vec::with_capacity(count * dim), repeated: Vec::new(), not_utf8: 0 }
    }

    fn push(&mut self, word: &[u8], values: impl Iterator<Item = f32>) {
        let text = String::from_utf8_lossy(word);
        self.not_utf8 += usize::from(matches!(text, Cow::Owned(_)));
        let text = text.into_owned();
        if !self.known.insert(text.clone()) {
            self.repeated.push(text);
            return;
        }
        self.words.push(text);
        self.values.extend(values);
    }

    /// Warnings about the file, for the user.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.repeated.is_empty() {
            let (count, first) = (self.repeated.len(), self.repeated.iter().take(3).cloned().collect::<Vec<_>>());
            let first = first.join("`, `");
            warnings.push(format!("{count} words occur more than once, of which the first vector counts: `{first}` …"));
        }
        if self.not_utf8 > 0 {
            let count = self.not_utf8;
            warnings.push(format!("{count} words are not valid UTF-8; each invalid part was replaced by U+FFFD"));
        }
        warnings
    }

    fn finish(self) -> (WordVectors, Vec<String>) {
        let warnings = self.warnings();
        let counts = vec![1; self.words.len()];
        let vectors = WordVectors {
            vocabulary: Vocabulary::new(self.words, counts),
            vector_size: self.dim,
            input: self.values,
            output: Vec::new(),
            uses_negative_sampling: true,
            architecture: Architecture::SkipGram,
            subwords: None,
            normalized: OnceLock::new(),
        };
        (vectors, warnings)
    }
}

/// The fields of a text line that are its values, and the word before them, which may contain spaces.
pub(super) fn split_text_line(line: &[u8], dim: usize) -> Option<(&[u8], Vec<f32>)> {
    let mut fields = line.trim_ascii_end().rsplitn(dim + 1, |b| *b == b' ');
    let parse = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
    let mut values = fields.by_ref().take(dim).map(parse).collect::<Option<Vec<f32>>>()?;
    let word = fields.next()?;
    values.reverse();
    (values.len() == dim).then_some((word, values))
}

/// Reads the text format. Returns the vectors and what a user should know about them.
pub(super) fn read_text(bytes: &[u8]) -> Result<(WordVectors, Vec<String>), String> {
    let (count, dim, start) = read_header(bytes, 2)?;
    let mut lines = bytes[start..].split(|b| *b == b'\n');
    let mut rows = Rows::new(count, dim);
    for index in 0..count {
        let line = lines.next().unwrap_or_default();
        let (word, values) = split_text_line(line, dim).ok_or_else(|| {
            let found = String::from_utf8_lossy(line).trim().chars().take(60).collect::<String>();
            format!("word {} of {count}: found `{found}`, expected a word and {dim} numbers", index + 1)
        })?;
        rows.push(word, values.into_iter());
    }
    match lines.filter(|line| !line.trim_ascii().is_empty()).count() {
        0 => Ok(rows.finish()),
        more => Err(format!("header: found {count} words, but {more} more lines follow them")),
    }
}

/// Reads the binary format. Returns the vectors and what a user should know about them.
pub(super) fn read_binary(bytes: &[u8]) -> Result<(WordVectors, Vec<String>), String> {
    let (count, dim, start) = read_header(bytes, 4)?;
    let mut rows = Rows::new(count, dim);
    let mut rest = &bytes[start..];
    for index in 0..count {
        let (word, values, next) = split_record(rest, dim, index + 1 == count)
            .ok_or_else(|| format!("word {} of {count}: the file ends before its {dim} values", index + 1))?;
        rows.push(word, values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        rest = next;
    }
    match skip_line_breaks(rest).len() {
        0 => Ok(rows.finish()),
        more => Err(format!(
            "{more} bytes follow the last of {count} words: the header is of another file, or a word holds a space"
        )),
    }
}

/// Some programs end each vector with a line break, some do not.
fn skip_line_breaks(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|b| *b != b'\n').unwrap_or(bytes.len());
    &bytes[start..]
}

/// The first word, its values, and the bytes after them. A word ends at its first space; where what follows the values
/// cannot be a word, at the first space with which it can: gensim writes words with spaces too.
fn split_record(bytes: &[u8], dim: usize, last: bool) -> Option<(&[u8], &[u8], &[u8])> {
    let bytes = skip_line_breaks(bytes);
    let spaces = bytes.iter().take(MAX_WORD_BYTES).enumerate().filter(|(_, b)| **b == b' ').map(|(i, _)| i);
    let split = |space: usize| {
        let values = bytes.get(space + 1..space + 1 + dim * 4)?;
        Some((&bytes[..space], values, &bytes[space + 1 + dim * 4..]))
    };
    let fits = |(word, _, next): &(&[u8], &[u8], &[u8])| {
        let next = skip_line_breaks(next);
        let end = next.iter().take(MAX_WORD_BYTES).position(|b| *b == b' ');
        let follows = if last { next.is_empty() } else { end.is_some_and(|end| is_word(&next[..end])) };
        follows && is_word(word)
    };
    let mut records = spaces.filter_map(split);
    let first = records.next()?;
    if fits(&first) { Some(first) } else { records.find(fits).or(Some(first)) }
}

/// Whether bytes can be a word: text without control characters.
fn is_word(bytes: &[u8]) -> bool {
    !bytes.iter().any(u8::is_ascii_control) && std::str::from_utf8(bytes).is_ok()
}

/// Whether bytes are lines of text.
pub(super) fn is_text(bytes: &[u8]) -> bool {
    bytes.split(|b| matches!(*b, b'\n' | b'\r' | b'\t')).all(is_word)
}

pub(super) fn write(vectors: &WordVectors, out: &mut impl Write, binary: bool) -> std::io::Result<()> {
    writeln!(out, "{} {}", vectors.vocabulary.words.len(), vectors.vector_size)?;
    for word in &vectors.vocabulary.words {
        let row = vectors.vector(word).unwrap_or_default();
        if binary {
            refuse(word, &[' ', '\n'], "binary")?;
            write!(out, "{word} ")?;
            row.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?;
        } else {
            refuse(word, &['\n'], "text")?;
            write!(out, "{word}")?;
            row.iter().try_for_each(|v| write!(out, " {v}"))?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// An error where a word has one of the characters that end a word in a format.
pub(super) fn refuse(word: &str, ends: &[char], format: &str) -> std::io::Result<()> {
    let Some(end) = word.chars().find(|c| ends.contains(c)) else { return Ok(()) };
    let reason = format!("the {format} format cannot hold the word {word:?}, which contains {end:?}");
    Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason))
}
