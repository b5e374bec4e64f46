//! fastText's binary model format, version 12: arguments, dictionary, input matrix, output matrix.

use super::word2vec_format::refuse;
use crate::word2vec::{config::Architecture, subwords::SubwordConfig, vectors::WordVectors, vocabulary::Vocabulary};
use std::{
    io::{BufRead, Read, Write},
    sync::OnceLock,
};

/// First four bytes of a model.
pub(super) const MAGIC: i32 = 793_712_314;
const VERSION: i32 = 12;

/// Codes of the loss and of the model in the arguments.
const LOSS_HIERARCHICAL_SOFTMAX: i64 = 1;
const LOSS_NEGATIVE_SAMPLING: i64 = 2;
const MODEL_CBOW: i64 = 1;
const MODEL_SKIP_GRAM: i64 = 2;

/// Largest dimension and largest number of rows that are accepted.
const MAX_DIM: i64 = 100_000;
const MAX_ROWS: i64 = 1 << 31;

fn read_bytes<const N: usize>(reader: &mut impl Read) -> Result<[u8; N], String> {
    let mut bytes = [0u8; N];
    reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

fn read_i32(reader: &mut impl Read) -> Result<i64, String> {
    Ok(i64::from(i32::from_le_bytes(read_bytes(reader)?)))
}

fn read_i64(reader: &mut impl Read) -> Result<i64, String> {
    Ok(i64::from_le_bytes(read_bytes(reader)?))
}

/// A size from the file, checked before anything is allocated for it.
fn checked_size(value: i64, max: i64, what: &str) -> Result<usize, String> {
    let size = usize::try_from(value).ok().filter(|_| value <= max);
    size.ok_or_else(|| format!("{what}: found {value}, expected 0 to {max}"))
}

fn read_matrix(reader: &mut impl Read, rows: Option<usize>, dim: usize) -> Result<Vec<f32>, String> {
    if read_bytes::<1>(reader)? != [0] {
        return Err("quantized models are not supported".into());
    }
    let (found_rows, found_dim) = (read_i64(reader)?, read_i64(reader)?);
    if found_dim != dim as i64 || rows.is_some_and(|rows| found_rows != rows as i64) {
        let expected = rows.map_or_else(|| "any".to_owned(), |rows| rows.to_string());
        return Err(format!("matrix: found {found_rows} × {found_dim}, expected {expected} × {dim}"));
    }
    let mut values = Vec::new();
    let mut row = vec![0u8; dim * 4];
    for _ in 0..found_rows {
        reader.read_exact(&mut row).map_err(|e| e.to_string())?;
        values.extend(row.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    }
    Ok(values)
}

pub(super) fn read(reader: &mut impl BufRead) -> Result<WordVectors, String> {
    let (magic, version) = (read_i32(reader)?, read_i32(reader)?);
    if magic != i64::from(MAGIC) || version != i64::from(VERSION) {
        return Err(format!("format version: found {version}, expected {VERSION}"));
    }
    let mut arguments = [0i64; 12];
    for value in &mut arguments {
        *value = read_i32(reader)?;
    }
    read_bytes::<8>(reader)?; // sampling threshold
    let [dim, _window, _epochs, _min_count, _negative, _word_ngrams, loss, model, bucket, min_n, max_n, _] = arguments;
    let (num_entries, num_words, num_labels) = (read_i32(reader)?, read_i32(reader)?, read_i32(reader)?);
    let (_num_tokens, pruned_size) = (read_i64(reader)?, read_i64(reader)?);
    if num_labels > 0 || pruned_size > 0 {
        return Err("supervised and pruned models are not supported".into());
    }
    let dim = checked_size(dim, MAX_DIM, "dimension")?;
    if dim == 0 {
        return Err(format!("dimension: found 0, expected 1 to {MAX_DIM}"));
    }
    let num_entries = checked_size(num_entries.max(num_words), MAX_ROWS, "number of words")?;
    let (mut words, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..num_entries {
        let mut word = Vec::new();
        reader.read_until(0, &mut word).map_err(|e| e.to_string())?;
        word.pop();
        counts.push(read_i64(reader)?.unsigned_abs());
        read_bytes::<1>(reader)?; // entry type: a word
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    let mut input = read_matrix(reader, Some(num_entries + checked_size(bucket, MAX_ROWS, "bucket")?), dim)?;
    let output = read_matrix(reader, None, dim)?;
    let subwords = (bucket > 0 && max_n > 0).then(|| SubwordConfig {
        min_n: min_n.max(1) as usize,
        max_n: max_n as usize,
        bucket: bucket as u32,
    });
    if subwords.is_none() {
        // Rows of n-grams that the model does not use.
        input.truncate(num_entries * dim);
    }
    Ok(WordVectors {
        vocabulary: Vocabulary::new(words, counts),
        vector_size: dim,
        input,
        output,
        uses_negative_sampling: loss == LOSS_NEGATIVE_SAMPLING,
        architecture: if model == MODEL_CBOW { Architecture::Cbow } else { Architecture::SkipGram },
        subwords,
        normalized: OnceLock::new(),
    })
}

pub(super) fn write(vectors: &WordVectors, out: &mut impl Write) -> std::io::Result<()> {
    let no_subwords = SubwordConfig { min_n: 0, max_n: 0, bucket: 0 };
    let subwords = vectors.subwords.as_ref().unwrap_or(&no_subwords);
    let loss = if vectors.uses_negative_sampling { LOSS_NEGATIVE_SAMPLING } else { LOSS_HIERARCHICAL_SOFTMAX };
    let model = if vectors.architecture == Architecture::Cbow { MODEL_CBOW } else { MODEL_SKIP_GRAM };
    let (dim, num_words) = (vectors.vector_size as i64, vectors.vocabulary.words.len());
    // Options that do not affect the use of a model (window, epochs, …) have fastText's defaults.
    let arguments = [
        [i64::from(MAGIC), i64::from(VERSION), dim, 5],
        [5, 1, 5, 1],
        [loss, model, i64::from(subwords.bucket), subwords.min_n as i64],
    ];
    for value in arguments.iter().flatten().chain(&[subwords.max_n as i64, 100]) {
        out.write_all(&(*value as i32).to_le_bytes())?;
    }
    out.write_all(&1e-4f64.to_le_bytes())?;
    for value in [num_words as i32, num_words as i32, 0] {
        out.write_all(&value.to_le_bytes())?;
    }
    for value in [vectors.vocabulary.total_count() as i64, -1] {
        out.write_all(&value.to_le_bytes())?;
    }
    for (word, count) in vectors.vocabulary.words.iter().zip(&vectors.vocabulary.counts) {
        refuse(word, &['\0'], "fastText")?;
        out.write_all(word.as_bytes())?;
        out.write_all(&[0])?;
        out.write_all(&(*count as i64).to_le_bytes())?;
        out.write_all(&[0])?;
    }
    let zeros = vec![0f32; num_words * vectors.vector_size];
    let output = if vectors.output.is_empty() { &zeros } else { &vectors.output };
    for matrix in [&vectors.input, output] {
        out.write_all(&[0])?;
        out.write_all(&((matrix.len() / vectors.vector_size.max(1)) as i64).to_le_bytes())?;
        out.write_all(&dim.to_le_bytes())?;
        matrix.iter().try_for_each(|v| out.write_all(&v.to_le_bytes()))?;
    }
    Ok(())
}
