//! word2vec's text and binary formats.

use crate::word2vec::{config::Architecture, vectors::WordVectors, vocabulary::Vocabulary};
use std::{
    io::{BufRead, Write},
    sync::OnceLock,
};

/// Reads vectors from a file of `num_bytes` bytes.
pub(super) fn read(reader: &mut impl BufRead, num_bytes: usize, binary: bool) -> Result<WordVectors, String> {
    let mut line = String::new();
    reader.read_line(&mut line).map_err(|e| format!("not a file of word vectors: {e}"))?;
    let sizes: Vec<usize> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    let [count, dim] = sizes[..] else {
        let found: String = line.trim().chars().take(60).collect();
        return Err(format!("header: found `{found}`, expected two integers: number of words and dimension"));
    };
    // Checked before allocating: the header may be wrong.
    let min_bytes_per_value = if binary { 4 } else { 2 };
    if dim == 0 || count.saturating_mul(dim).saturating_mul(min_bytes_per_value) > num_bytes {
        return Err(format!("header: {count} words of dimension {dim} do not fit in its {num_bytes} bytes"));
    }
    let (mut words, mut input) = (Vec::with_capacity(count), Vec::with_capacity(count * dim));
    for index in 0..count {
        let word = if binary {
            read_binary_word(reader, dim, &mut input)
        } else {
            line.clear();
            reader.read_line(&mut line).map_err(|e| e.to_string()).and_then(|_| parse_text_word(&line, dim, &mut input))
        };
        words.push(word.map_err(|reason| format!("word {} of {count}: {reason}", index + 1))?);
    }
    let counts = vec![1; words.len()];
    Ok(WordVectors {
        vocabulary: Vocabulary::new(words, counts),
        vector_size: dim,
        input,
        output: Vec::new(),
        uses_negative_sampling: true,
        architecture: Architecture::SkipGram,
        subwords: None,
        normalized: OnceLock::new(),
    })
}

fn read_binary_word(reader: &mut impl BufRead, dim: usize, values: &mut Vec<f32>) -> Result<String, String> {
    let mut word = Vec::new();
    reader.read_until(b' ', &mut word).map_err(|e| e.to_string())?;
    let mut bytes = vec![0u8; dim * 4];
    reader.read_exact(&mut bytes).map_err(|e| e.to_string())?;
    values.extend(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    // Some programs end each vector with a line break, some do not.
    let text = String::from_utf8_lossy(&word);
    Ok(text.trim_start_matches('\n').trim_end_matches(' ').to_owned())
}

fn parse_text_word(line: &str, dim: usize, values: &mut Vec<f32>) -> Result<String, String> {
    let mut fields = line.trim_end().rsplitn(dim + 1, ' ');
    let mut row: Vec<f32> = fields.by_ref().take(dim).filter_map(|w| w.parse().ok()).collect();
    let word = fields.next().ok_or_else(|| format!("expected a word and {dim} values"))?;
    if row.len() != dim {
        return Err(format!("found {} values, expected {dim}", row.len()));
    }
    row.reverse();
    values.extend(row);
    Ok(word.to_owned())
}

pub(super) fn write(vectors: &WordVectors, out: &mut impl Write, binary: bool) -> std::io::Result<()> {
    writeln!(out, "{} {}", vectors.vocabulary.words.len(), vectors.vector_size)?;
    for word in &vectors.vocabulary.words {
        let row = vectors.vector(word).unwrap_or_default();
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
