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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InMemoryDataset;

    /// Rows of texts, of which three follow each other for an item.
    struct Items(InMemoryDataset, Vec<String>);

    impl Items {
        fn new(rows: usize) -> Self {
            let mut texts = InMemoryDataset::new();
            for row in 0..rows {
                let text = Source::Text("a".repeat(row * 7 % 11 + 1));
                texts.push(row.to_string(), [(Modality::TEXT, text)]);
            }
            Self(texts, (0..rows).map(|row| format!("item {}", row / 3)).collect())
        }
    }

    impl Dataset for Items {
        fn len(&self) -> usize {
            self.0.len()
        }
        fn name(&self) -> String {
            self.0.name()
        }
        fn id(&self, index: usize) -> &str {
            self.0.id(index)
        }
        fn item(&self, index: usize) -> &str {
            &self.1[index]
        }
        fn sources(&self, index: usize, modality: &Modality) -> &[Source] {
            self.0.sources(index, modality)
        }
    }

    /// The batches of an epoch, of which several processes load a part each.
    fn batches(dataset: &Items, config: &LoaderConfig, epoch: u64, parts: usize) -> Vec<Vec<usize>> {
        let rows: Vec<usize> = (0..dataset.len()).collect();
        let plan_of = |part: usize| {
            let planner = EpochPlanner::new(dataset, rows.clone(), config.clone(), 5, true).unwrap();
            planner.with_shard((part, parts)).plan(dataset, epoch)
        };
        let plans: Vec<Vec<PlannedBatch>> = (0..parts).map(plan_of).collect();
        let joined = |batch: usize| {
            let own: Vec<&PlannedBatch> = plans.iter().map(|plan| &plan[batch]).collect();
            if own[0].is_shard && !config.group_by_item {
                let sizes = own.iter().map(|part| part.rows.len());
                assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{own:?}");
            }
            if own[0].is_shard {
                assert!(own.iter().all(|part| part.is_shard));
                return own.iter().flat_map(|part| part.rows.clone()).collect();
            }
            // A batch of fewer rows than processes is loaded whole by each.
            assert!(own.iter().all(|part| *part == own[0]));
            own[0].rows.clone()
        };
        (0..plans[0].len()).map(joined).collect()
    }

    #[test]
    fn any_number_of_processes_has_the_same_rows_in_the_same_order() {
        let dataset = Items::new(50);
        let of = |bucket_by: Option<&str>, group_by_item: bool| LoaderConfig {
            batch_size: 6,
            bucket_by: bucket_by.map(ToOwned::to_owned),
            group_by_item,
            ..LoaderConfig::default()
        };
        for config in [of(None, false), of(Some("text"), false), of(None, true)] {
            for epoch in 0..3 {
                let alone = batches(&dataset, &config, epoch, 1);
                for parts in [2, 3, 4, 8] {
                    assert_eq!(batches(&dataset, &config, epoch, parts), alone, "{parts} processes");
                }
                // Every row once.
                let mut rows = alone.concat();
                rows.sort_unstable();
                assert_eq!(rows, (0..50).collect::<Vec<_>>());
            }
            assert_ne!(batches(&dataset, &config, 0, 2), batches(&dataset, &config, 1, 2), "epochs differ");
        }
    }

    #[test]
    fn an_epoch_that_is_continued_by_another_number_of_processes_has_each_row_once() {
        let dataset = Items::new(50);
        let config = LoaderConfig { batch_size: 6, ..LoaderConfig::default() };
        let alone = batches(&dataset, &config, 2, 1);
        // Two batches by two processes, three by one, and the rest by four.
        let mut continued = Vec::new();
        for (parts, count) in [(2, 2), (1, 3), (4, alone.len())] {
            let done = continued.len();
            continued.extend(batches(&dataset, &config, 2, parts).into_iter().skip(done).take(count));
        }
        assert_eq!(continued, alone);
    }
}
