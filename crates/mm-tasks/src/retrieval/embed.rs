//! Embeddings of the values of a split.

use super::model::{MEMORY_FILE, Retrieval};
use crate::{
    Error, ProgressFn, Result,
    batch::{BATCH_SIZE, SampleBatch, failed_sample},
};
use mm_core::{
    Device, Modality, Processor, Source, Tensor,
    distributed::{SentTensor, map_over_ranks},
};
use mm_data::{FailedSample, Manifest, Split};
use mm_train::Run;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

/// The embeddings of one modality of a split.
pub struct EmbeddedSplit {
    /// `[entries, embed_dim]` of unit norm.
    pub vectors: Tensor,
    /// The value of each row of `vectors`.
    pub entries: Vec<Entry>,
}

/// One embedded value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The row in [`Manifest::rows`].
    pub row: usize,
    /// Its index among the row's values of the modality.
    pub value: usize,
    /// The item: values of the same item match each other.
    pub item: String,
    /// The row's first text in lower case: values of rows with equal texts may be counted as matches.
    pub text: String,
    /// The language, if the manifest states it.
    pub language: Option<String>,
    /// The value.
    pub source: Source,
}

/// The embeddings of a batch of values.
#[derive(Serialize, Deserialize)]
struct EmbeddedChunk {
    /// The row of each, and its index among the row's values.
    values: Vec<(usize, usize)>,
    /// `[read, embed_dim]`; none where no value could be read.
    vectors: Option<SentTensor>,
    /// Which of the values could be read.
    read: Vec<usize>,
    failed: Vec<FailedSample>,
}

impl Retrieval {
    /// Embeds a split: of text and images the first value of each row, of other modalities every value.
    pub fn embed_split(
        &self,
        manifest: &Manifest,
        split: Split,
        on_progress: ProgressFn<'_>,
    ) -> Result<BTreeMap<Modality, EmbeddedSplit>> {
        let processors = self.prepare(manifest, &AtomicBool::new(false), on_progress)?;
        self.embed_split_with(manifest, split, &processors, &mut Vec::new())
    }

    /// Like [`Retrieval::embed_split`], but with processors of [`Retrieval::prepare`]; values that cannot be read are
    /// added to `failed`.
    pub(super) fn embed_split_with(
        &self,
        manifest: &Manifest,
        split: Split,
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
        failed: &mut Vec<FailedSample>,
    ) -> Result<BTreeMap<Modality, EmbeddedSplit>> {
        let mut out = BTreeMap::new();
        for (modality, processor) in processors {
            let entries = entries(manifest, split, modality);
            if let Some(embedded) = self.embed_entries(manifest, modality, processor.as_ref(), entries, failed)? {
                out.insert(modality.clone(), embedded);
            }
        }
        Ok(out)
    }

    fn embed_entries(
        &self,
        manifest: &Manifest,
        modality: &Modality,
        processor: &dyn Processor,
        mut entries: Vec<Entry>,
        failed: &mut Vec<FailedSample>,
    ) -> Result<Option<EmbeddedSplit>> {
        // Files of similar size together, so that there is little padding.
        let size = |s: &Source| match s {
            Source::Path(path) => std::fs::metadata(path).map_or(0, |m| m.len()),
            Source::Bytes(file) => file.len() as u64,
            _ => 0,
        };
        entries.sort_by_cached_key(|e| (size(&e.source), e.row));
        let chunks =
            map_over_ranks(entries.chunks(BATCH_SIZE), |chunk| self.embed_chunk(manifest, modality, processor, chunk))?;
        let (mut vectors, mut read) = (Vec::new(), Vec::new());
        for (chunk, embedded) in entries.chunks(BATCH_SIZE).zip(chunks) {
            if !embedded.values.iter().copied().eq(chunk.iter().map(|e| (e.row, e.value))) {
                let found = format!("other files of {modality} than another process does");
                return Err(Error::invalid("data", found, "the same files in all processes"));
            }
            failed.extend(embedded.failed);
            vectors.extend(embedded.vectors.map(|SentTensor(vectors)| vectors));
            read.extend(embedded.read.iter().map(|n| chunk[*n].clone()));
        }
        if vectors.is_empty() {
            return Ok(None);
        }
        let vectors = Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?;
        Ok(Some(EmbeddedSplit { vectors, entries: read }))
    }

    fn embed_chunk(
        &self,
        manifest: &Manifest,
        modality: &Modality,
        processor: &dyn Processor,
        chunk: &[Entry],
    ) -> Result<EmbeddedChunk> {
        let batch = SampleBatch::read(processor, &chunk.iter().map(|e| &e.source).collect::<Vec<_>>());
        let mut failed = Vec::new();
        for (index, error) in &batch.failed {
            let row = &manifest.rows[chunk[*index].row];
            tracing::warn!("left out: row {}, {modality}: {error}", row.number);
            failed.push(failed_sample(row, modality, error));
        }
        let vectors = match batch.collate(processor)? {
            Some(input) => Some(SentTensor(self.embed_input(modality, &input)?.to_device(Device::Cpu)?)),
            None => None,
        };
        let read = if vectors.is_some() { batch.indices } else { Vec::new() };
        let values = chunk.iter().map(|e| (e.row, e.value)).collect();
        Ok(EmbeddedChunk { values, vectors, read, failed })
    }

    /// Writes the training embeddings of the modality of `[memory]`, under the best weights, into a run folder.
    pub(super) fn save_memory(
        &self,
        manifest: &Manifest,
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
        run: &Path,
    ) -> Result<()> {
        let Some(config) = &self.config.memory else { return Ok(()) };
        let (checkpoint, _) = Run::open_checkpoint(run, "best")?;
        self.params.load(&checkpoint, "model.")?;
        let modality = Modality::from(config.modality.as_str());
        let own = processors.iter().filter(|(m, _)| **m == modality).map(|(m, p)| (m.clone(), p.clone())).collect();
        let Some(embedded) = self.embed_split_with(manifest, Split::Train, &own, &mut Vec::new())?.remove(&modality)
        else {
            let found = format!("no training row with {modality}");
            return Err(Error::invalid("memory.modality", found, "at least one"));
        };
        mm_core::checkpoint::save(&run.join(MEMORY_FILE), &[("vectors".to_owned(), embedded.vectors)], &[])?;
        Ok(())
    }
}

fn entries(manifest: &Manifest, split: Split, modality: &Modality) -> Vec<Entry> {
    let first_only = *modality == Modality::TEXT || *modality == Modality::IMAGE;
    let mut entries = Vec::new();
    for index in manifest.rows_in_split(split) {
        let row = &manifest.rows[index];
        let text = match row.values.get(&Modality::TEXT).and_then(|v| v.first()) {
            Some(Source::Text(text)) => text.trim().to_lowercase(),
            _ => row.item.clone(),
        };
        let values = row.values.get(modality).map(Vec::as_slice).unwrap_or_default();
        for (n, source) in values.iter().enumerate().take(if first_only { 1 } else { usize::MAX }) {
            let language = row.languages.get(modality).and_then(|l| l.get(n)).cloned().flatten();
            let (item, text, source) = (row.item.clone(), text.clone(), source.clone());
            entries.push(Entry { row: index, value: n, item, text, language, source });
        }
    }
    entries
}
