//! Files of words and vectors: word2vec's text and binary, fastText's `.bin`.

use super::{Architecture, SubwordConfig, Vocabulary, WordVectors, at};
use crate::{Error, Result};
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
    sync::OnceLock,
};

/// How words and vectors lie in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line with both sizes, then a line a word.
    Text,
    /// The same with numbers as bytes.
    Binary,
    /// fastText's model, n-grams included.
    FastText,
}

const MAGIC: i32 = 793_712_314;
const VERSION: i32 = 12;

impl Format {
    /// What a file seems to be.
    pub fn detect(path: &Path) -> Result<Self> {
        let mut head = vec![0u8; 1 << 16];
        let mut file = File::open(path).map_err(at(path))?;
        let read = file.read(&mut head).map_err(at(path))?;
        head.truncate(read);
        if head.starts_with(&MAGIC.to_le_bytes()) {
            return Ok(Self::FastText);
        }
        // After the line of sizes a text has only text.
        let after = head.iter().position(|b| *b == b'\n').map_or(0, |i| i + 1);
        let text = match std::str::from_utf8(&head[after..]) {
            Ok(text) => text,
            Err(error) if error.error_len().is_none() => {
                std::str::from_utf8(&head[after..after + error.valid_up_to()]).unwrap_or("")
            }
            Err(_) => return Ok(Self::Binary),
        };
        let first = text.lines().next().unwrap_or("");
        let numbers = first.split(' ').skip(1).filter(|w| !w.is_empty()).all(|w| w.parse::<f32>().is_ok());
        Ok(if numbers { Self::Text } else { Self::Binary })
    }
}

impl WordVectors {
    /// Reads a file in whichever of the formats it is.
    pub fn load(path: &Path) -> Result<Self> {
        let format = Format::detect(path)?;
        let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(at(path))?);
        let bad = |reason: String| Error::folder(path, reason);
        if format == Format::FastText {
            return fasttext(&mut reader).map_err(|e| bad(format!("not a whole fastText model: {e}")));
        }
        let mut line = String::new();
        reader.read_line(&mut line).map_err(|e| bad(format!("not a file of word vectors: {e}")))?;
        let sizes: Vec<usize> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let [count, vector_size] = sizes[..] else {
            return Err(bad(format!(
                "the first line is `{}`, wanted two numbers: how many words and how wide",
                line.trim().chars().take(60).collect::<String>()
            )));
        };
        // A header that lies about its size must not take all memory.
        let length = std::fs::metadata(path).map_err(at(path))?.len() as usize;
        let least = if format == Format::Binary { 4 } else { 2 };
        if vector_size == 0 || count.saturating_mul(vector_size).saturating_mul(least) > length {
            return Err(bad(format!(
                "its first line promises {count} words of {vector_size} numbers, more than its {length} bytes can hold"
            )));
        }
        let (mut words, mut input) = (Vec::with_capacity(count), Vec::with_capacity(count * vector_size));
        for number in 0..count {
            let short = |what: &str| bad(format!("word {} of {count}: {what}", number + 1));
            if format == Format::Text {
                line.clear();
                reader.read_line(&mut line).map_err(|e| short(&e.to_string()))?;
                let mut parts = line.trim_end().rsplitn(vector_size + 1, ' ');
                let mut row: Vec<f32> = parts.by_ref().take(vector_size).filter_map(|w| w.parse().ok()).collect();
                let word = parts.next().ok_or_else(|| short(&format!("wanted a word and {vector_size} numbers")))?;
                if row.len() != vector_size {
                    return Err(short(&format!("found {} numbers, wanted {vector_size}", row.len())));
                }
                row.reverse();
                words.push(word.to_owned());
                input.extend(row);
            } else {
                let mut word = Vec::new();
                reader.read_until(b' ', &mut word).map_err(|e| short(&e.to_string()))?;
                let text = String::from_utf8_lossy(&word);
                // Some programs end each word with a line break, some do not.
                words.push(text.trim_start_matches('\n').trim_end_matches(' ').to_owned());
                let mut bytes = vec![0u8; vector_size * 4];
                reader.read_exact(&mut bytes).map_err(|e| short(&e.to_string()))?;
                input.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
            }
        }
        let counts = vec![1; words.len()];
        Ok(Self {
            vocabulary: Vocabulary::new(words, counts),
            vector_size,
            input,
            output: Vec::new(),
            negative: true,
            architecture: Architecture::SkipGram,
            subwords: None,
            unit: OnceLock::new(),
        })
    }

    /// Writes a file; the whole of it or nothing.
    pub fn save(&self, path: &Path, format: Format) -> Result<()> {
        let fresh = std::path::PathBuf::from(format!("{}.new", path.display()));
        let mut out = BufWriter::with_capacity(1 << 20, File::create(&fresh).map_err(at(&fresh))?);
        match format {
            Format::FastText => self.write_fasttext(&mut out),
            _ => self.write_plain(&mut out, format == Format::Binary),
        }
        .and_then(|()| out.flush())
        .map_err(at(&fresh))?;
        std::fs::rename(&fresh, path).map_err(at(path))
    }

    fn write_plain(&self, out: &mut impl Write, binary: bool) -> std::io::Result<()> {
        writeln!(out, "{} {}", self.vocabulary.words.len(), self.vector_size)?;
        for word in &self.vocabulary.words {
            let row = self.vector(word).unwrap_or_default();
            if binary {
                write!(out, "{word} ")?;
                row.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?;
            } else {
                write!(out, "{word}")?;
                row.iter().try_for_each(|v| write!(out, " {v}"))?;
            }
            writeln!(out)?;
        }
        Ok(())
    }

    fn write_fasttext(&self, out: &mut impl Write) -> std::io::Result<()> {
        let none = SubwordConfig { min_n: 0, max_n: 0, bucket: 0 };
        let subwords = self.subwords.as_ref().unwrap_or(&none);
        let mut number = |v: i64, bytes: usize| out.write_all(&v.to_le_bytes()[..bytes]);
        let (loss, model) =
            (if self.negative { 2 } else { 1 }, if self.architecture == Architecture::Cbow { 1 } else { 2 });
        let words = self.vocabulary.words.len();
        for value in [i64::from(MAGIC), i64::from(VERSION), self.vector_size as i64, 5, 5, 1, 5, 1, loss, model] {
            number(value, 4)?;
        }
        for value in [i64::from(subwords.bucket), subwords.min_n as i64, subwords.max_n as i64, 100] {
            number(value, 4)?;
        }
        out.write_all(&1e-4f64.to_le_bytes())?;
        let mut number = |v: i64, bytes: usize| out.write_all(&v.to_le_bytes()[..bytes]);
        for (value, bytes) in
            [(words as i64, 4), (words as i64, 4), (0, 4), (self.vocabulary.total() as i64, 8), (-1, 8)]
        {
            number(value, bytes)?;
        }
        for (word, count) in self.vocabulary.words.iter().zip(&self.vocabulary.counts) {
            out.write_all(word.as_bytes())?;
            out.write_all(&[0])?;
            out.write_all(&(*count as i64).to_le_bytes())?;
            out.write_all(&[0])?;
        }
        let zeros = vec![0f32; words * self.vector_size];
        let output = if self.output.is_empty() { &zeros } else { &self.output };
        for matrix in [&self.input, output] {
            out.write_all(&[0])?;
            out.write_all(&((matrix.len() / self.vector_size.max(1)) as i64).to_le_bytes())?;
            out.write_all(&(self.vector_size as i64).to_le_bytes())?;
            matrix.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?;
        }
        Ok(())
    }
}

fn fasttext(reader: &mut impl BufRead) -> Result<WordVectors, String> {
    fn bytes<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], String> {
        let mut bytes = [0u8; N];
        reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
        Ok(bytes)
    }
    fn int(reader: &mut impl Read) -> Result<i64, String> {
        Ok(i64::from(i32::from_le_bytes(bytes(reader)?)))
    }
    fn long(reader: &mut impl Read) -> Result<i64, String> {
        Ok(i64::from_le_bytes(bytes(reader)?))
    }
    if int(reader)? != i64::from(MAGIC) || int(reader)? != i64::from(VERSION) {
        return Err("another version of the format; wanted 12".into());
    }
    let mut arguments = [0i64; 12];
    for value in &mut arguments {
        *value = int(reader)?;
    }
    bytes::<8>(reader)?;
    let [vector_size, _, _, _, _, _, loss, model, bucket, min_n, max_n, _] = arguments;
    let (entries, words_count, labels) = (int(reader)?, int(reader)?, int(reader)?);
    let (_tokens, pruned) = (long(reader)?, long(reader)?);
    if labels > 0 || pruned > 0 {
        return Err("a supervised or pruned model is not read".into());
    }
    let sane = |n: i64, most: i64, what: &str| {
        usize::try_from(n).ok().filter(|_| n <= most).ok_or_else(|| format!("{what}: {n} makes no sense"))
    };
    let (vector_size, entries) =
        (sane(vector_size, 100_000, "vector_size")?, sane(entries.max(words_count), 1 << 31, "words")?);
    let (mut words, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..entries {
        let mut word = Vec::new();
        reader.read_until(0, &mut word).map_err(|e| e.to_string())?;
        word.pop();
        counts.push(long(reader)?.unsigned_abs());
        bytes::<1>(reader)?;
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    let mut matrix = |rows: Option<usize>| -> Result<Vec<f32>, String> {
        if bytes::<1>(reader)? != [0] {
            return Err("a quantised model is not read".into());
        }
        let (found, across) = (long(reader)?, long(reader)?);
        if across != vector_size as i64 || rows.is_some_and(|r| found != r as i64) {
            return Err(format!("a matrix of {found} × {across}, wanted {rows:?} × {vector_size}"));
        }
        let mut values = Vec::new();
        let mut row = vec![0u8; vector_size * 4];
        for _ in 0..found {
            reader.read_exact(&mut row).map_err(|e| e.to_string())?;
            values.extend(row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        }
        Ok(values)
    };
    let input = matrix(Some(entries + sane(bucket, 1 << 31, "bucket")?))?;
    let output = matrix(None)?;
    let subwords = (bucket > 0 && max_n > 0).then(|| SubwordConfig {
        min_n: min_n.max(1) as usize,
        max_n: max_n as usize,
        bucket: bucket as u32,
    });
    Ok(WordVectors {
        vocabulary: Vocabulary::new(words, counts),
        vector_size,
        input,
        output,
        negative: loss == 2,
        architecture: if model == 1 { Architecture::Cbow } else { Architecture::SkipGram },
        subwords,
        unit: OnceLock::new(),
    })
}
