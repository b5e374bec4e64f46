//! The order of an epoch: a function of the seed and the epoch alone.

use super::config::{Curriculum, LoaderConfig};
use crate::{Dataset, Error, Result};
use mm_core::{Modality, Source, seed::Rng};
use std::collections::HashMap;

/// Marks the random numbers of the epoch order among all random numbers of a seed.
const ORDER_STREAM: u64 = 0x10AD;
/// Batches over which rows are sorted by length: little padding, while the rows of a batch still change between epochs.
const BUCKET_BATCHES: usize = 50;

/// Which rows come in which batch of an epoch.
pub(super) struct EpochPlanner {
    rows: Vec<usize>,
    /// The rows of the first epochs, where there is a curriculum.
    easier: Vec<usize>,
    config: LoaderConfig,
    seed: u64,
    train: bool,
    /// The part of each batch that is loaded, and the number of parts.
    shard: (usize, usize),
}

/// The rows of a batch, and whether the processes share them or each has all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlannedBatch {
    pub(super) rows: Vec<usize>,
    pub(super) is_shard: bool,
}

impl EpochPlanner {
    pub(super) fn new(
        dataset: &dyn Dataset,
        rows: Vec<usize>,
        config: LoaderConfig,
        seed: u64,
        train: bool,
    ) -> Result<Self> {
        let mut easier = Vec::new();
        if let Some(Curriculum { column, values, .. }) = config.curriculum.as_ref().filter(|_| train) {
            let is_easy = |r: &usize| dataset.cell(*r, column).is_some_and(|cell| values.iter().any(|v| v == cell));
            easier = rows.iter().copied().filter(is_easy).collect();
            if easier.is_empty() {
                return Err(Error::Config(format!(
                    "loader.curriculum: found no training row of {} with {} in the column `{column}`, expected at least one",
                    dataset.name(),
                    values.join(" or ")
                )));
            }
        }
        Ok(Self { rows, easier, config, seed, train, shard: (0, 1) })
    }

    /// Plans one part of each batch alone; see [`LoaderBuilder::shard`](super::LoaderBuilder::shard).
    pub(super) fn with_shard(self, shard: (usize, usize)) -> Self {
        Self { shard, ..self }
    }

    /// This process's part of a batch of rows, or of the rows of items.
    fn part<T>(&self, batch: &[T], rows: impl Fn(&[T]) -> Vec<usize>) -> PlannedBatch {
        let (part, parts) = self.shard;
        if parts == 1 || batch.len() < parts {
            return PlannedBatch { rows: rows(batch), is_shard: false };
        }
        let bound = |n: usize| batch.len() * n / parts;
        PlannedBatch { rows: rows(&batch[bound(part)..bound(part + 1)]), is_shard: true }
    }

    /// All rows.
    pub(super) fn rows(&self) -> &[usize] {
        &self.rows
    }

    fn rows_in_epoch(&self, epoch: u64) -> &[usize] {
        match &self.config.curriculum {
            Some(curriculum) if self.train && epoch < curriculum.epochs => &self.easier,
            _ => &self.rows,
        }
    }

    pub(super) fn num_batches(&self, dataset: &dyn Dataset, epoch: u64) -> usize {
        let rows = self.rows_in_epoch(epoch);
        let count = if self.config.group_by_item { group_rows_by_item(dataset, rows).len() } else { rows.len() };
        count.div_ceil(self.config.batch_size)
    }

    /// The rows of each batch of an epoch.
    pub(super) fn plan(&self, dataset: &dyn Dataset, epoch: u64) -> Vec<PlannedBatch> {
        let mut random = Rng::new(&[self.seed, ORDER_STREAM, epoch]);
        let batch_size = self.config.batch_size;
        if self.config.group_by_item {
            let mut items = group_rows_by_item(dataset, self.rows_in_epoch(epoch));
            if self.train {
                random.shuffle(&mut items);
            }
            return items.chunks(batch_size).map(|batch| self.part(batch, <[Vec<usize>]>::concat)).collect();
        }
        let mut rows = self.rows_in_epoch(epoch).to_vec();
        if self.train {
            random.shuffle(&mut rows);
        }
        let Some(modality) = self.config.bucket_by.as_deref().map(Modality::from) else {
            return rows.chunks(batch_size).map(|batch| self.part(batch, <[usize]>::to_vec)).collect();
        };
        let mut batches = Vec::new();
        for bucket in rows.chunks_mut(batch_size * BUCKET_BATCHES) {
            bucket.sort_by_cached_key(|r| (approximate_length(dataset.sources(*r, &modality)), *r));
            batches.extend(bucket.chunks(batch_size).map(|batch| self.part(batch, <[usize]>::to_vec)));
        }
        if self.train {
            random.shuffle(&mut batches);
        }
        batches
    }
}

/// Groups rows of a data set by item: items in the order of their first row, the rows of each in theirs.
pub fn group_rows_by_item(dataset: &dyn Dataset, rows: &[usize]) -> Vec<Vec<usize>> {
    let mut positions: HashMap<&str, usize> = HashMap::new();
    let mut items: Vec<Vec<usize>> = Vec::new();
    for row in rows {
        let next = items.len();
        let position = *positions.entry(dataset.item(*row)).or_insert(next);
        if position == next {
            items.push(Vec::new());
        }
        items[position].push(*row);
    }
    for item in &mut items {
        item.sort_by(|a, b| dataset.order(*a).total_cmp(&dataset.order(*b)));
    }
    items
}

/// A number that grows with the length of a row's value; only its order matters.
fn approximate_length(sources: &[Source]) -> u64 {
    match sources.first() {
        Some(Source::Text(text)) => text.len() as u64,
        Some(Source::Bytes(file)) => file.len() as u64,
        Some(Source::Samples(audio)) => audio.samples().len() as u64,
        Some(Source::Path(path)) => std::fs::metadata(path).map_or(0, |m| m.len()),
        _ => 0,
    }
}
