//! The loader: worker threads decode and transform samples ahead of the model.
//!
//! The order of samples and every random choice are functions of the seed, the epoch and the row, whatever the number
//! of workers. At most `(prefetch + 2) × batch_size` samples are in memory.

mod batch;
mod config;
mod gather;
mod plan;
mod send;
mod worker;

pub use batch::{Batch, ModalityBatch, collate};
pub use config::{Curriculum, ErrorPolicy, LoaderConfig};
pub use plan::group_rows_by_item;
pub use worker::{FailedSample, catching_panics, process_catching_panics};

use crate::{Dataset, Error, Result};
use mm_core::{Modality, Processor};
use plan::EpochPlanner;
use rayon::prelude::*;
use send::SendBatch;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};
use worker::Shared;

/// Builds a [`Loader`].
pub struct LoaderBuilder {
    dataset: Arc<dyn Dataset>,
    rows: Option<Vec<usize>>,
    processors: BTreeMap<Modality, Arc<dyn Processor>>,
    config: LoaderConfig,
    seed: u64,
    train: bool,
    shard: (usize, usize),
}

impl LoaderBuilder {
    /// The rows to load, as indices into the data set; all rows when not called.
    pub fn rows(mut self, rows: Vec<usize>) -> Self {
        self.rows = Some(rows);
        self
    }

    /// Adds a modality with its processor. Modalities without a processor are not loaded.
    pub fn processor(mut self, modality: Modality, processor: Arc<dyn Processor>) -> Self {
        self.processors.insert(modality, processor);
        self
    }

    /// Adds several modalities with their processors.
    pub fn processors(mut self, processors: BTreeMap<Modality, Arc<dyn Processor>>) -> Self {
        self.processors.extend(processors);
        self
    }

    /// The settings.
    pub fn config(mut self, config: LoaderConfig) -> Self {
        self.config = config;
        self
    }

    /// The seed of the order and of augmentation.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Loads for training: rows are shuffled in every epoch, samples are augmented, one of several values is sampled.
    pub fn for_training(mut self) -> Self {
        self.train = true;
        self
    }

    /// Loads the part `rank` of `world_size` of each batch, for a process among several that train together: the same
    /// batches in the same order, cut into consecutive parts whose sizes differ by one at most (by items with
    /// `group_by_item`). A batch of fewer rows than processes is not cut: every process gets all of it.
    pub fn shard(mut self, rank: usize, world_size: usize) -> Self {
        self.shard = (rank, world_size);
        self
    }

    /// The loader.
    ///
    /// # Errors
    /// When a setting is out of range, no row matches the curriculum, or the worker threads cannot be started.
    pub fn build(self) -> Result<Loader> {
        let Self { dataset, rows, processors, config, seed, train, shard } = self;
        config.check()?;
        if shard.0 >= shard.1 {
            return Err(Error::Config(format!("loader: found part {} of {}, expected less", shard.0, shard.1)));
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(config.num_workers)
            .thread_name(|i| format!("mm-loader-{i}"))
            .build()
            .map_err(|e| Error::Config(format!("loader.num_workers: {e}")))?;
        let rows = rows.unwrap_or_else(|| (0..dataset.len()).collect());
        let planner = EpochPlanner::new(dataset.as_ref(), rows, config.clone(), seed, train)?.with_shard(shard);
        let failed = Mutex::default();
        Ok(Loader { shared: Arc::new(Shared { dataset, planner, processors, config, seed, train, pool, failed }) })
    }
}

/// Makes batches of the rows of a [`Dataset`].
///
/// ```
/// use mm_core::{Modality, ProcessContext, Processor, Result, Source, Tensor};
/// use mm_data::{InMemoryDataset, Loader, LoaderConfig};
/// use std::sync::Arc;
///
/// /// Texts → the lengths of their words.
/// struct WordLengths;
///
/// impl Processor for WordLengths {
///     fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
///         let Source::Text(text) = source else { return Err(mm_core::Error::Sample("expected text".into())) };
///         Tensor::from_slice(&text.split(' ').map(|word| word.len() as i64).collect::<Vec<_>>())
///     }
///     fn is_sequence(&self) -> bool {
///         true
///     }
///     fn fingerprint(&self) -> String {
///         "word lengths".into()
///     }
/// }
///
/// let mut dataset = InMemoryDataset::new();
/// dataset.push("a", [(Modality::TEXT, Source::Text("a red apple".into()))]);
/// dataset.push("b", [(Modality::TEXT, Source::Text("pears".into()))]);
/// let loader = Loader::builder(Arc::new(dataset))
///     .processor(Modality::TEXT, Arc::new(WordLengths))
///     .config(LoaderConfig { batch_size: 2, ..LoaderConfig::default() })
///     .build()?;
/// for batch in loader.epoch(0, 0) {
///     let input = &batch?.modalities[&Modality::TEXT].input;
///     assert_eq!(input.values.to_vec::<i64>()?, [1, 3, 5, 5, 0, 0]); // [2, 3], padded
///     assert!(input.mask.is_some());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Loader {
    shared: Arc<Shared>,
}

impl Loader {
    /// Starts to build a loader of a data set.
    pub fn builder(dataset: Arc<dyn Dataset>) -> LoaderBuilder {
        let (processors, config) = (BTreeMap::new(), LoaderConfig::default());
        LoaderBuilder { dataset, rows: None, processors, config, seed: 0, train: false, shard: (0, 1) }
    }

    /// Number of batches in an epoch. Samples that cannot be read make batches smaller, not fewer.
    pub fn num_batches(&self, epoch: u64) -> usize {
        self.shared.planner.num_batches(self.shared.dataset.as_ref(), epoch)
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.shared.planner.rows().len()
    }

    /// The batches of an epoch from batch `first` on; a resumed run starts in the middle of its epoch.
    pub fn epoch(&self, epoch: u64, first: usize) -> Epoch {
        let shared = self.shared.clone();
        // Several batches are loaded at once, so that collating one does not delay the samples of the next. Together
        // with those in the channel and the one in use, at most `prefetch + 2` exist.
        let at_once = (shared.config.prefetch / 2).max(1);
        let (sender, receiver) = mpsc::sync_channel(shared.config.prefetch + 1 - at_once.min(shared.config.prefetch));
        let worker = std::thread::Builder::new().name("mm-loader".into()).spawn(move || {
            let plan = shared.planner.plan(shared.dataset.as_ref(), epoch);
            let indices: Vec<usize> = (first..plan.len()).collect();
            for chunk in indices.chunks(at_once) {
                let load = |n: &usize| Ok(shared.load_batch(epoch, *n, &plan[*n])?.into_send()?);
                let batches: Vec<Result<SendBatch>> = shared.pool.install(|| chunk.par_iter().map(load).collect());
                for batch in batches {
                    let stop = batch.is_err();
                    // The receiver is dropped when the epoch is.
                    if sender.send(batch).is_err() || stop {
                        return;
                    }
                }
            }
        });
        let (worker, spawn_error) = match worker {
            Ok(worker) => (Some(worker), None),
            Err(error) => (None, Some(Error::Config(format!("cannot start the loader's thread: {error}")))),
        };
        Epoch { receiver: Some(receiver), worker, spawn_error }
    }

    /// The samples that could not be read so far, in the order of their rows.
    pub fn failed_samples(&self) -> Vec<FailedSample> {
        self.shared.failed.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Iterates over the batches of one epoch, which a thread prepares ahead.
pub struct Epoch {
    receiver: Option<mpsc::Receiver<Result<SendBatch>>>,
    worker: Option<JoinHandle<()>>,
    spawn_error: Option<Error>,
}

impl Iterator for Epoch {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(error) = self.spawn_error.take() {
            return Some(Err(error));
        }
        if let Ok(batch) = self.receiver.as_ref()?.recv() {
            Some(batch.map(Batch::from))
        } else {
            self.receiver = None;
            // The channel is closed: the epoch is over, or the thread panicked.
            let panicked = self.worker.take()?.join().is_err();
            panicked.then(|| Err(Error::Config("the loader's thread panicked; please report it with the file".into())))
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
    use crate::{Manifest, ManifestConfig};
    use mm_core::{ProcessContext, Source, Tensor};

    /// Texts → the lengths of their words, after a delay that depends on the text, so that workers finish out of order.
    struct WordLengths;

    impl Processor for WordLengths {
        fn process(&self, source: &Source, context: &mut ProcessContext) -> mm_core::Result<Tensor> {
            let Source::Text(text) = source else { return Err(mm_core::Error::Sample("not text".into())) };
            if text.contains("unreadable") {
                return Err(mm_core::Error::Sample("it is unreadable".into()));
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
            "word lengths".into()
        }
    }

    fn loader(rows: usize, config: LoaderConfig, train: bool) -> Loader {
        let folder = tempfile::tempdir().unwrap();
        let text: String = (0..rows)
            .map(|i| {
                format!(
                    "{{\"id\":\"{i}\",\"text\":\"{}\"}}\n",
                    if i == 7 { "an unreadable one".to_owned() } else { vec!["ab"; i % 9 + 1].join(" ") }
                )
            })
            .collect();
        std::fs::write(folder.path().join("m.jsonl"), text).unwrap();
        let manifest =
            Manifest::open(&ManifestConfig { manifest: "m.jsonl".into(), ..ManifestConfig::default() }, folder.path())
                .unwrap();
        let processors = BTreeMap::from([(Modality::TEXT, Arc::new(WordLengths) as Arc<dyn Processor>)]);
        let builder = Loader::builder(Arc::new(manifest)).processors(processors).config(config).seed(5);
        if train { builder.for_training() } else { builder }.build().unwrap()
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
    fn curriculum_starts_with_easier_rows_only() {
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
        assert_eq!(ids(&loader(40, config.clone(), false), 0).len(), 39, "evaluation uses all rows");
    }

    #[test]
    fn batches_do_not_depend_on_the_number_of_workers_or_the_first_batch() {
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
            // Dropping an epoch early must not block.
            drop(one.epoch(0, 0).next());
        }
    }

    #[test]
    fn failed_samples_are_skipped_and_recorded_once_or_fatal() {
        let skipping = loader(20, LoaderConfig { batch_size: 6, ..LoaderConfig::default() }, false);
        for _ in 0..2 {
            assert_eq!(trace(&skipping, 0, 0).iter().map(|b| b.0.len()).sum::<usize>(), 19);
        }
        let failed = skipping.failed_samples();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].to_string(), "row 8 (7), text: it is unreadable");
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
