//! Word vectors in word2vec's text and binary formats.

use crate::bytes::{folder, write};
use mm_repr::word2vec::{Format, WordVectors};

/// Reads vectors.
pub fn read(input: &[u8]) {
    load(input, &[]);
}

/// Reads vectors in any format, compares some words, and writes them in all formats; those in `exact` are read back and
/// must hold the same.
pub(super) fn load(input: &[u8], exact: &[Format]) {
    let folder = folder();
    let Ok(vectors) = WordVectors::load(&write(folder.path(), "x.bin", input)) else { return };
    let words = &vectors.vocabulary.words;
    if let Some(first) = words.first() {
        let _ = vectors.most_similar(first, 3);
    }
    let _ = vectors.vector("unknown");
    let copy = folder.path().join("copy.bin");
    for format in [Format::Text, Format::Binary, Format::FastText] {
        if vectors.save(&copy, format).is_err() {
            continue;
        }
        let again = WordVectors::load(&copy);
        if !exact.contains(&format) {
            continue;
        }
        let again = again.expect("a written file can be read");
        assert_eq!((again.vector_size, &again.vocabulary.counts), (vectors.vector_size, &vectors.vocabulary.counts));
        assert_eq!(&again.vocabulary.words, words);
        let bits =
            |v: &WordVectors, word| v.vector(word).map(|row| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        for word in words.iter().take(8) {
            assert_eq!(bits(&again, word), bits(&vectors, word), "{word}");
        }
    }
}
