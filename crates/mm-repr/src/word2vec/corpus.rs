//! Encoding a corpus as word ids in a file, so that it need not fit in memory. The text is read twice.

use super::{
    config::Word2VecConfig,
    phrases::Phrases,
    sentences::{for_each_sentence, io_error},
    vocabulary::Vocabulary,
};
use crate::Result;
use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// Marks the end of a sentence among the ids.
pub(super) const SENTENCE_END: u32 = u32::MAX;

/// Above this many distinct words the rarest are dropped while counting, as in the original program.
const MAX_VOCABULARY: usize = 20_000_000;

/// A corpus encoded on disk.
pub(super) struct EncodedCorpus {
    pub(super) vocabulary: Vocabulary,
    /// Little-endian u32 ids, [`SENTENCE_END`] after each sentence.
    pub(super) file: PathBuf,
}

/// A memory-mapped file of ids.
pub(super) struct MappedCorpus(memmap2::Mmap);

impl MappedCorpus {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(io_error(path))?;
        // SAFETY: the file lies in the work folder, which only this process writes.
        Ok(Self(unsafe { memmap2::Mmap::map(&file) }.map_err(io_error(path))?))
    }

    pub(super) fn ids(&self) -> &[u32] {
        // SAFETY: any four bytes are a valid u32, and a mapping is page-aligned.
        unsafe { self.0.align_to::<u32>().1 }
    }
}

/// Calls `process` with each word of a sentence, phrases joined.
fn for_each_token(
    sentence: &[&str],
    phrases: Option<&Phrases>,
    process: &mut impl FnMut(&str) -> Result<()>,
) -> Result<()> {
    match phrases {
        None => sentence.iter().try_for_each(|word| process(word)),
        Some(phrases) => phrases.transform(sentence).iter().try_for_each(|token| process(token)),
    }
}

fn build_vocabulary(
    files: &[PathBuf],
    min_count: u64,
    phrases: Option<&Phrases>,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<Vocabulary> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    let mut prune_below = 1;
    for_each_sentence(files, on_bytes, &mut |sentence| {
        for_each_token(sentence, phrases, &mut |token| {
            match counts.get_mut(token) {
                Some(count) => *count += 1,
                None => drop(counts.insert(token.to_owned(), 1)),
            }
            Ok(())
        })?;
        if counts.len() > MAX_VOCABULARY {
            counts.retain(|_, count| *count > prune_below);
            prune_below += 1;
        }
        Ok(())
    })?;
    let mut entries: Vec<(String, u64)> = counts.into_iter().filter(|(_, count)| *count >= min_count).collect();
    entries.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (words, counts) = entries.into_iter().unzip();
    Ok(Vocabulary::new(words, counts))
}

/// Builds the vocabulary, then writes the corpus as ids into `work_dir`. `on_progress` receives the bytes read by the
/// current pass and their total.
pub(super) fn encode(
    files: &[PathBuf],
    config: &Word2VecConfig,
    phrases: Option<&Phrases>,
    work_dir: &Path,
    on_progress: &mut dyn FnMut(u64, u64),
) -> Result<EncodedCorpus> {
    let size = |path: &PathBuf| std::fs::metadata(path).map(|m| m.len()).map_err(io_error(path));
    let total_bytes: u64 = files.iter().map(size).sum::<Result<u64>>()?;
    let mut bytes_read = 0;
    let vocabulary = build_vocabulary(files, config.min_count, phrases, &mut |bytes| {
        bytes_read += bytes;
        on_progress(bytes_read, total_bytes);
    })?;
    let file = work_dir.join("corpus.u32");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&file).map_err(io_error(&file))?);
    bytes_read = 0;
    let mut on_bytes = |bytes| {
        bytes_read += bytes;
        on_progress(bytes_read, total_bytes);
    };
    for_each_sentence(files, &mut on_bytes, &mut |sentence| {
        let mut is_empty = true;
        for_each_token(sentence, phrases, &mut |token| {
            if let Some(id) = vocabulary.id(token) {
                is_empty = false;
                out.write_all(&id.to_le_bytes()).map_err(io_error(&file))?;
            }
            Ok(())
        })?;
        if !is_empty {
            out.write_all(&SENTENCE_END.to_le_bytes()).map_err(io_error(&file))?;
        }
        Ok(())
    })?;
    out.flush().map_err(io_error(&file))?;
    Ok(EncodedCorpus { vocabulary, file })
}
