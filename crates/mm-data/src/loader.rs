//! The loader: worker threads decode and transform ahead of the model. The order, and every random choice, is a function of seed,
//! epoch and row, whatever the number of workers; memory is bounded by `(prefetch + 2) × batch` samples.

use crate::{Error, Manifest, Result, Row};
use mm_core::{DType, Input, Modality, ProcessContext, Processor, Source, Tensor, seed::Rng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
};

/// What a broken sample does to the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ErrorPolicy {
    /// It is reported, counted and left out.
    #[default]
    Skip,
    /// It ends the run.
    Fail,
}

/// How batches are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoaderConfig {
    /// Rows in a batch.
    pub batch_size: usize,
    /// Batches made ahead of the one in use.
    pub prefetch: usize,
    /// Worker threads; as many as the machine has cores when 0.
    pub num_workers: usize,
    /// What a broken sample does.
    pub on_error: ErrorPolicy,
    /// Batches of rows of about the same length of this modality, so that little padding is made.
    pub bucket_by: Option<String>,
    /// Whether the rows of an item stay together, in their order: `batch` then counts items.
    pub group_by_item: bool,
    /// Modalities of which always the first value is taken, where a row has several; of the others one is drawn while training.
    pub always_first_source: Vec<String>,
    /// The rows that training begins with; all from the start when absent.
    pub curriculum: Option<Curriculum>,
}

/// Easier rows first (curriculum learning, Bengio 2009): for the first epochs training sees only rows whose cell in a column is one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Curriculum {
    /// The column.
    pub column: String,
    /// What it says of the easier rows.
    pub values: Vec<String>,
    /// Epochs of them alone.
    pub epochs: u64,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        Self {
            batch_size: 32,
            prefetch: 4,
            num_workers: 0,
            on_error: ErrorPolicy::Skip,
            bucket_by: None,
            group_by_item: false,
            always_first_source: Vec::new(),
            curriculum: None,
        }
    }
}

impl LoaderConfig {
    /// Whether the settings make sense.
    pub fn check(&self) -> Result<()> {
        if self.batch_size == 0 {
            return Err(Error::Config("loader.batch_size: found 0, wanted at least 1".into()));
        }
        Ok(())
    }
}

/// One modality of a batch: the rows that have it, and their numbers.
#[derive(Debug, Clone)]
pub struct ModalityBatch {
    /// The numbers, one row for each entry of `rows`.
    pub input: Input,
    /// Which rows of the batch these are.
    pub rows: Vec<usize>,
    /// Which of each row's values was taken.
    pub source_index: Vec<usize>,
}

/// A batch: some rows of a manifest, each with the modalities that it has.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Which batch of the epoch it is, counted from zero.
    pub index: usize,
    /// The rows' numbers in [`Manifest::rows`].
    pub rows: Vec<usize>,
    /// The rows' ids, for messages.
    pub ids: Vec<String>,
    /// What the rows show: equal texts match each other.
    pub items: Vec<String>,
    /// The modalities.
    pub modalities: BTreeMap<Modality, ModalityBatch>,
}

impl Batch {
    /// The rows that have each of these modalities (their places in [`Batch::rows`]), and their numbers of each, in the same order; none when no
    /// row has all.
    pub fn rows_with_all(
        &self,
        modalities: &[&Modality],
        device: mm_core::Device,
    ) -> mm_core::Result<Option<(Vec<usize>, Vec<Input>)>> {
        let Some(parts) = modalities.iter().map(|m| self.modalities.get(m)).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let place = |part: &ModalityBatch, row: usize| part.rows.iter().position(|r| *r == row);
        let rows: Vec<usize> =
            (0..self.rows.len()).filter(|row| parts.iter().all(|p| place(p, *row).is_some())).collect();
        if rows.is_empty() {
            return Ok(None);
        }
        let pick = |part: &&ModalityBatch| -> mm_core::Result<Input> {
            let places: Vec<i64> = rows.iter().filter_map(|r| place(part, *r)).map(|n| n as i64).collect();
            let places = Tensor::from_slice(&places)?.to_device(device)?;
            let take = |t: &Tensor| t.to_device(device)?.index_select(0, &places);
            Ok(Input { values: take(&part.input.values)?, mask: part.input.mask.as_ref().map(take).transpose()? })
        };
        let inputs = parts.iter().map(pick).collect::<mm_core::Result<_>>()?;
        Ok(Some((rows, inputs)))
    }
}

/// A sample that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct FailedSample {
    /// Its row in the manifest, counted from one.
    pub row: usize,
    /// Its id.
    pub id: String,
    /// Its modality.
    pub modality: String,
    /// The file and what was wrong with it.
    pub reason: String,
}

impl fmt::Display for FailedSample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "row {} ({}), {}: {}", self.row, self.id, self.modality, self.reason)
    }
}

/// Makes batches of some rows of a manifest.
pub struct Loader {
    shared: Arc<Shared>,
}

struct Shared {
    manifest: Arc<Manifest>,
    rows: Vec<usize>,
    /// Those that training begins with, where there is a curriculum.
    easier: Vec<usize>,
    processors: BTreeMap<Modality, Arc<dyn Processor>>,
    config: LoaderConfig,
    seed: u64,
    train: bool,
    pool: rayon::ThreadPool,
    broken: Mutex<BTreeMap<(usize, String), FailedSample>>,
}

impl Loader {
    /// A loader over `rows` of a manifest. With `train` the order is drawn anew for each epoch and samples are augmented.
    pub fn new(
        manifest: Arc<Manifest>,
        rows: Vec<usize>,
        processors: BTreeMap<Modality, Arc<dyn Processor>>,
        config: LoaderConfig,
        seed: u64,
        train: bool,
    ) -> Result<Self> {
        config.check()?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.num_workers)
            .thread_name(|i| format!("mm-loader-{i}"))
            .build()
            .map_err(|e| Error::Config(format!("loader.num_workers: {e}")))?;
        let broken = Mutex::default();
        let mut easier = Vec::new();
        if let Some(Curriculum { column, values, .. }) = config.curriculum.as_ref().filter(|_| train) {
            let easy = |r: &usize| manifest.rows[*r].cells.get(column).is_some_and(|cell| values.contains(cell));
            easier = rows.iter().copied().filter(easy).collect();
            if easier.is_empty() {
                let path = manifest.path.display();
                let found = format!("no training row of {path} with {} in the column `{column}`", values.join(" or "));
                return Err(Error::Config(format!("loader.curriculum: found {found}, wanted some to begin with")));
            }
        }
        Ok(Self { shared: Arc::new(Shared { manifest, rows, easier, processors, config, seed, train, pool, broken }) })
    }

    /// Number of batches in an epoch (broken samples make batches smaller, not fewer).
    pub fn num_batches(&self, epoch: u64) -> usize {
        let rows = self.shared.rows(epoch);
        let count = if self.shared.config.group_by_item {
            group_rows_by_item(&self.shared.manifest, rows).len()
        } else {
            rows.len()
        };
        count.div_ceil(self.shared.config.batch_size)
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.shared.rows.len()
    }

    /// The batches of an epoch from batch `from` on: where a run that stopped in the middle goes on.
    pub fn epoch(&self, epoch: u64, from: usize) -> Epoch {
        let shared = self.shared.clone();
        // Some batches are made side by side, so that putting one together does not hold up the next one's samples. With those that wait
        // and the one in use, `prefetch + 2` exist at most.
        let side_by_side = (shared.config.prefetch / 2).max(1);
        let (sender, receiver) =
            mpsc::sync_channel(shared.config.prefetch + 1 - side_by_side.min(shared.config.prefetch));
        let worker = std::thread::Builder::new().name("mm-loader".into()).spawn(move || {
            let plan = shared.plan(epoch);
            let numbers: Vec<usize> = (from..plan.len()).collect();
            for some in numbers.chunks(side_by_side) {
                let made: Vec<Result<Batch>> =
                    shared.pool.install(|| some.par_iter().map(|n| shared.batch(epoch, *n, &plan[*n])).collect());
                for batch in made {
                    let stop = batch.is_err();
                    // The other side hangs up when it has had enough.
                    if sender.send(batch).is_err() || stop {
                        return;
                    }
                }
            }
        });
        let (worker, failed) = match worker {
            Ok(worker) => (Some(worker), None),
            Err(error) => (None, Some(Error::Config(format!("no thread for the loader: {error}")))),
        };
        Epoch { receiver: Some(receiver), worker, failed }
    }

    /// The samples that could not be read so far, in the order of their rows.
    pub fn failed_samples(&self) -> Vec<FailedSample> {
        let broken = self.shared.broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        broken.values().cloned().collect()
    }
}

impl Shared {
    /// The rows of each item, in their order.
    /// The rows of an epoch.
    fn rows(&self, epoch: u64) -> &[usize] {
        match &self.config.curriculum {
            Some(curriculum) if self.train && epoch < curriculum.epochs => &self.easier,
            _ => &self.rows,
        }
    }

    fn plan(&self, epoch: u64) -> Vec<Vec<usize>> {
        if self.config.group_by_item {
            let mut items = group_rows_by_item(&self.manifest, self.rows(epoch));
            if self.train {
                Rng::new(&[self.seed, 0x10AD, epoch]).shuffle(&mut items);
            }
            return items.chunks(self.config.batch_size).map(<[Vec<usize>]>::concat).collect();
        }
        let mut rows = self.rows(epoch).to_vec();
        let mut random = Rng::new(&[self.seed, 0x10AD, epoch]);
        if self.train {
            random.shuffle(&mut rows);
        }
        let batch = self.config.batch_size;
        let Some(modality) = self.config.bucket_by.as_deref().map(Modality::from) else {
            return rows.chunks(batch).map(<[usize]>::to_vec).collect();
        };
        // Sorted within stretches of fifty batches: little padding, and still another company in each epoch.
        let mut batches = Vec::new();
        for stretch in rows.chunks_mut(batch * 50) {
            stretch.sort_by_cached_key(|r| (length(&self.manifest.rows[*r], &modality), *r));
            batches.extend(stretch.chunks(batch).map(<[usize]>::to_vec));
        }
        if self.train {
            random.shuffle(&mut batches);
        }
        batches
    }

    fn batch(&self, epoch: u64, number: usize, rows: &[usize]) -> Result<Batch> {
        let samples: Vec<Result<Option<Sample>>> =
            self.pool.install(|| rows.par_iter().map(|r| self.sample(epoch, *r)).collect());
        let mut batch =
            Batch { index: number, rows: Vec::new(), ids: Vec::new(), items: Vec::new(), modalities: BTreeMap::new() };
        let mut columns: BTreeMap<&Modality, (Vec<Tensor>, Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for (row, sample) in rows.iter().zip(samples) {
            let Some(sample) = sample? else { continue };
            let about = &self.manifest.rows[*row];
            for (modality, (tensor, chosen)) in sample {
                let column = columns.entry(modality).or_default();
                column.0.push(tensor);
                column.1.push(batch.rows.len());
                column.2.push(chosen);
            }
            batch.rows.push(*row);
            batch.ids.push(about.id.clone());
            batch.items.push(about.item.clone());
        }
        for (modality, (tensors, rows, chosen)) in columns {
            let input = collate(&tensors, self.processors[modality].as_ref())?;
            batch.modalities.insert(modality.clone(), ModalityBatch { input, rows, source_index: chosen });
        }
        Ok(batch)
    }

    /// `None` when a value of the row is broken and broken ones are skipped.
    fn sample(&self, epoch: u64, index: usize) -> Result<Option<Sample<'_>>> {
        let row = &self.manifest.rows[index];
        let mut sample = Vec::new();
        for (place, (modality, processor)) in self.processors.iter().enumerate() {
            let Some(values) = row.values.get(modality).filter(|v| !v.is_empty()) else { continue };
            let random = Rng::new(&[self.seed, epoch, index as u64, place as u64]);
            let mut context = ProcessContext { train: self.train, rng: random };
            let always_first = !self.train || self.config.always_first_source.iter().any(|m| m == modality.name());
            let chosen = if always_first { 0 } else { context.rng.below(values.len()) };
            match process_catching_panics(processor.as_ref(), &values[chosen], &mut context) {
                Ok(tensor) => sample.push((modality, (tensor, chosen))),
                Err(error) => {
                    let broken = FailedSample {
                        row: row.number,
                        id: row.id.clone(),
                        modality: modality.to_string(),
                        reason: error.to_string(),
                    };
                    if self.config.on_error == ErrorPolicy::Fail {
                        let hint = "the run was told to fail on a broken sample (loader.on_error = \"skip\" goes on without it)";
                        return Err(Error::FailedSample { sample: broken.to_string(), hint });
                    }
                    let mut met = self.broken.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                    if met.insert((index, modality.to_string()), broken.clone()).is_none() {
                        tracing::warn!("skipped {broken}");
                    }
                    return Ok(None);
                }
            }
        }
        Ok(Some(sample))
    }
}

/// Some rows of a manifest by what they show, each item's in their order; items by where they first stand.
pub fn group_rows_by_item(manifest: &Manifest, rows: &[usize]) -> Vec<Vec<usize>> {
    let mut places: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    let mut items: Vec<Vec<usize>> = Vec::new();
    for row in rows {
        let next = items.len();
        let place = *places.entry(&manifest.rows[*row].item).or_insert(next);
        if place == next {
            items.push(Vec::new());
        }
        items[place].push(*row);
    }
    for item in &mut items {
        item.sort_by(|a, b| manifest.rows[*a].order.total_cmp(&manifest.rows[*b].order));
    }
    items
}

/// The numbers of one sample. A library that panics on one file must not take the run down: it is one more broken sample.
pub fn process_catching_panics(
    processor: &dyn Processor,
    source: &Source,
    context: &mut ProcessContext,
) -> Result<Tensor, mm_core::Error> {
    let attempt = std::panic::AssertUnwindSafe(|| processor.process(source, context));
    std::panic::catch_unwind(attempt)
        .unwrap_or_else(|_| Err(mm_core::Error::Sample(format!("a decoder panicked on {source:?}"))))
}

type Sample<'a> = Vec<(&'a Modality, (Tensor, usize))>;

/// About how long a row's value will be: only the order counts.
fn length(row: &Row, modality: &Modality) -> u64 {
    match row.values.get(modality).and_then(|v| v.first()) {
        Some(Source::Text(text)) => text.len() as u64,
        Some(Source::Path(path)) => std::fs::metadata(path).map_or(0, |m| m.len()),
        _ => 0,
    }
}

/// Samples → one input: stacked, or padded to the longest with a mask where they are sequences.
pub fn collate(samples: &[Tensor], processor: &dyn Processor) -> Result<Input> {
    let all: Vec<&Tensor> = samples.iter().collect();
    if !processor.is_sequence() {
        return Ok(Input { values: Tensor::stack_single_threaded(&all)?, mask: None });
    }
    let lengths = samples.iter().map(|s| s.size(0)).collect::<Result<Vec<i64>, _>>()?;
    let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
    let multiple = processor.pad_to_multiple_of().max(1);
    let longest = (longest + multiple - 1) / multiple * multiple;
    if lengths.iter().all(|l| *l == longest) {
        return Ok(Input { values: Tensor::stack_single_threaded(&all)?, mask: None });
    }
    let mut padded = Vec::with_capacity(samples.len());
    for (sample, length) in samples.iter().zip(&lengths) {
        // `pad` counts from the last dimension; the length is the first.
        let mut pad = vec![0; 2 * sample.rank()];
        if let Some(end) = pad.last_mut() {
            *end = longest - length;
        }
        padded.push(sample.pad(&pad, processor.pad_value())?);
    }
    let values = Tensor::stack_single_threaded(&padded.iter().collect::<Vec<_>>())?;
    let places = Tensor::arange(0, longest, mm_core::Device::Cpu)?;
    let mask = places.lt(&Tensor::from_slice(&lengths)?.unsqueeze(1)?)?; // [batch, longest]
    Ok(Input { values, mask: Some(mask.to_dtype(DType::Bool)?) })
}

/// The batches of one epoch, made ahead.
pub struct Epoch {
    receiver: Option<mpsc::Receiver<Result<Batch>>>,
    worker: Option<JoinHandle<()>>,
    failed: Option<Error>,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.failed.take() {
            return Some(Err(error));
        }
        if let Ok(batch) = self.receiver.as_ref()?.recv() {
            Some(batch)
        } else {
            self.receiver = None;
            // Ended without a word: either done, or a panic in a library on some file.
            let worker = self.worker.take()?;
            worker
                .join()
                .err()
                .map(|_| Err(Error::Config("a decoder panicked on a file; please report it with the file".into())))
        }
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        self.receiver = None;
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManifestConfig;

    /// Words → their lengths, after a while that depends on the text, so that workers finish out of order.
    struct Words;

    impl Processor for Words {
        fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
            let Source::Text(text) = source else { return Err(mm_core::Error::Sample("not text".into())) };
            if text.contains("broken") {
                return Err(mm_core::Error::Sample("it is broken".into()));
            }
            std::thread::sleep(std::time::Duration::from_micros(text.len() as u64 * 37 % 500));
            let noise = if context.train { context.rng.below(1000) as i64 } else { 0 };
            let lengths: Vec<i64> = text.split(' ').map(|w| w.len() as i64 + noise).collect();
            Tensor::from_slice(&lengths)
        }
        fn is_sequence(&self) -> bool {
            true
        }
        fn fingerprint(&self) -> String {
            "words".into()
        }
    }

    fn loader(rows: usize, config: LoaderConfig, train: bool) -> Loader {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (0..rows)
            .map(|i| {
                format!(
                    "{{\"id\":\"{i}\",\"text\":\"{}\"}}\n",
                    if i == 7 { "a broken one".to_owned() } else { vec!["ab"; i % 9 + 1].join(" ") }
                )
            })
            .collect();
        std::fs::write(folder.path().join("m.jsonl"), text).unwrap();
        let manifest =
            Manifest::open(&ManifestConfig { manifest: "m.jsonl".into(), ..ManifestConfig::default() }, folder.path())
                .unwrap();
        let processors = BTreeMap::from([(Modality::TEXT, Arc::new(Words) as Arc<dyn Processor>)]);
        Loader::new(Arc::new(manifest), (0..rows).collect(), processors, config, 5, train).unwrap()
    }

    fn trace(loader: &Loader, epoch: u64, from: usize) -> Vec<(Vec<String>, Vec<i64>, Option<Vec<i64>>)> {
        loader
            .epoch(epoch, from)
            .map(|b| {
                let b = b.unwrap();
                let part = &b.modalities[&Modality::TEXT];
                let mask = part.input.mask.as_ref().map(|m| m.to_vec::<i64>().unwrap());
                (b.ids, part.input.values.to_vec::<i64>().unwrap(), mask)
            })
            .collect()
    }

    #[test]
    fn easier_rows_come_alone_first_and_all_of_them_later() {
        let easy = |epochs| Curriculum { column: "text".into(), values: vec!["ab".into(), "ab ab".into()], epochs };
        let config = LoaderConfig { batch_size: 6, curriculum: Some(easy(2)), ..LoaderConfig::default() };
        let ids = |loader: &Loader, epoch| -> std::collections::BTreeSet<String> {
            trace(loader, epoch, 0).into_iter().flat_map(|b| b.0).collect()
        };
        let curriculum = loader(40, config.clone(), true);
        let first: std::collections::BTreeSet<String> =
            ["0", "1", "9", "10", "18", "19", "27", "28", "36", "37"].map(String::from).into();
        assert_eq!((ids(&curriculum, 0), curriculum.num_batches(0)), (first.clone(), 2));
        assert_eq!((ids(&curriculum, 1), curriculum.num_batches(1)), (first, 2));
        assert_eq!((ids(&curriculum, 2).len(), curriculum.num_batches(2)), (39, 7));
        assert_eq!(ids(&loader(40, config.clone(), false), 0).len(), 39, "what is measured is everything");
    }

    #[test]
    fn the_order_and_the_numbers_are_the_same_for_any_number_of_workers_and_from_the_middle() {
        for bucket_by in [None, Some("text".to_owned())] {
            let config = |num_workers| LoaderConfig {
                batch_size: 6,
                num_workers,
                bucket_by: bucket_by.clone(),
                ..LoaderConfig::default()
            };
            let one = loader(50, config(1), true);
            let many = loader(50, config(7), true);
            assert_eq!(trace(&one, 3, 0), trace(&many, 3, 0));
            assert_ne!(trace(&one, 3, 0), trace(&one, 4, 0));
            assert_eq!(trace(&one, 3, 0)[5..], trace(&many, 3, 5)[..]);
            // Hanging up early must not hang.
            drop(one.epoch(0, 0).next());
        }
    }

    #[test]
    fn broken_samples_are_skipped_counted_once_and_told_or_fatal() {
        let skipping = loader(20, LoaderConfig { batch_size: 6, ..LoaderConfig::default() }, false);
        for _ in 0..2 {
            assert_eq!(trace(&skipping, 0, 0).iter().map(|b| b.0.len()).sum::<usize>(), 19);
        }
        let failed = skipping.failed_samples();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].to_string(), "row 8 (7), text: it is broken");
        let failing =
            loader(20, LoaderConfig { batch_size: 6, on_error: ErrorPolicy::Fail, ..LoaderConfig::default() }, false);
        let error = failing.epoch(0, 0).find_map(Result::err).unwrap().to_string();
        assert!(error.contains("row 8 (7)"), "{error}");
    }

    #[test]
    fn padding_is_masked() {
        let out = trace(&loader(4, LoaderConfig { batch_size: 4, ..LoaderConfig::default() }, false), 0, 0);
        assert_eq!(out[0].1, [2, 0, 0, 0, 2, 2, 0, 0, 2, 2, 2, 0, 2, 2, 2, 2]);
        assert_eq!(out[0].2.as_ref().unwrap()[..8], [1, 0, 0, 0, 1, 1, 0, 0]);
    }
}
