//! Training, with a checkpoint after each epoch.

use super::{
    config::Word2VecConfig,
    corpus::{self, MappedCorpus},
    epoch::{Matrices, train_epoch},
    kernels::LANES,
    phrases::Phrases,
    sampling::Rng,
    sentences::io_error,
    vectors::WordVectors,
    worker::TrainingContext,
};
use crate::{Error, Result};
use mm_core::checkpoint::FolderLock;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Progress of training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Progress {
    /// Bytes of the corpus read, and their total.
    Reading(u64, u64),
    /// Words trained on, and their total over all epochs.
    Training(u64, u64),
}

/// What a checkpoint records before the matrices, as one line of JSON.
#[derive(Serialize, Deserialize)]
struct CheckpointState {
    config: Word2VecConfig,
    fingerprint: String,
    epochs_done: usize,
}

/// The files of a work folder.
struct Checkpoint<'a> {
    work_dir: &'a Path,
    /// The state and the matrices in one file, which is replaced atomically: an epoch is either done in both or in
    /// neither.
    file: PathBuf,
    fingerprint: String,
}

impl<'a> Checkpoint<'a> {
    fn new(work_dir: &'a Path, files: &[PathBuf], phrases: Option<&Phrases>) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        for file in files {
            let meta = std::fs::metadata(file).map_err(io_error(file))?;
            hasher.update(format!("{} {} {:?} ", file.display(), meta.len(), meta.modified().ok()).as_bytes());
        }
        hasher.update(format!("{:?}", phrases.map(Phrases::num_pairs)).as_bytes());
        Ok(Self {
            work_dir,
            file: work_dir.join("checkpoint.f32"),
            fingerprint: hasher.finalize().to_hex().to_string(),
        })
    }

    /// Restores the matrices if there is a checkpoint; returns the number of completed epochs.
    fn restore(&self, config: &Word2VecConfig, matrices: &mut Matrices) -> Result<usize> {
        let Ok(bytes) = std::fs::read(&self.file) else { return Ok(0) };
        let start = bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |end| end + 1);
        let (state, bytes) = bytes.split_at(start);
        let state: CheckpointState = serde_json::from_slice(state).map_err(|e| Error::folder(&self.file, e))?;
        if state.fingerprint != self.fingerprint || state.config != *config {
            let reason = "holds a checkpoint of another corpus or other options; delete it to start from scratch";
            return Err(Error::folder(self.work_dir, reason));
        }
        let expected = (matrices.input.len() + matrices.output.len()) * 4;
        if bytes.len() != expected {
            let found = bytes.len();
            let reason =
                format!("found {found} bytes, expected {expected}; delete the work folder to start from scratch");
            return Err(Error::folder(&self.file, reason));
        }
        let mut values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        matrices.input.iter_mut().chain(&mut matrices.output).for_each(|v| *v = values.next().unwrap_or(0.0));
        Ok(state.epochs_done)
    }

    fn save(&self, config: &Word2VecConfig, matrices: &Matrices, epochs_done: usize) -> Result<()> {
        let partial = self.work_dir.join("checkpoint.new");
        let mut out = BufWriter::new(File::create(&partial).map_err(io_error(&partial))?);
        let state = CheckpointState { config: config.clone(), fingerprint: self.fingerprint.clone(), epochs_done };
        serde_json::to_writer(&mut out, &state).map_err(|e| Error::folder(&partial, e))?;
        out.write_all(b"\n").map_err(io_error(&partial))?;
        for value in matrices.input.iter().chain(&matrices.output) {
            out.write_all(&value.to_le_bytes()).map_err(io_error(&partial))?;
        }
        // The values reach the disk before the name does.
        out.into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|f| f.sync_all())
            .map_err(io_error(&partial))?;
        std::fs::rename(&partial, &self.file).map_err(io_error(&self.file))
    }
}

/// Uniform in ±1/`vector_size`, as gensim initializes; twice the range of the original program, slightly better for
/// CBOW.
fn initial_matrices(config: &Word2VecConfig, num_words: usize) -> Matrices {
    let num_buckets = config.subwords.as_ref().map_or(0, |s| s.bucket as usize);
    let stride = config.vector_size.next_multiple_of(LANES);
    let mut input = vec![0.0; (num_words + num_buckets) * stride];
    let mut rng = Rng::new(config.seed ^ 0x5eed);
    for row in input.chunks_mut(stride) {
        for value in &mut row[..config.vector_size] {
            *value = ((rng.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0) / config.vector_size as f32;
        }
    }
    Matrices { input, output: vec![0.0; num_words * stride], stride }
}

/// Removes the padding of the rows.
fn without_padding(rows: Vec<f32>, stride: usize, dim: usize) -> Vec<f32> {
    if stride == dim { rows } else { rows.chunks(stride).flat_map(|row| &row[..dim]).copied().collect() }
}

impl WordVectors {
    /// Trains on text files with one sentence per line and words separated by white space.
    ///
    /// `work_dir` holds the encoded corpus and a checkpoint after each epoch; another call with the same files and
    /// options resumes from it. Returns `None` when `stop` was set.
    ///
    /// # Errors
    /// An option is out of range, fewer than two words reach `min_count`, a file cannot be read, or `work_dir` holds a
    /// checkpoint of another corpus or other options or is used by another process.
    pub fn train(
        files: &[PathBuf],
        config: &Word2VecConfig,
        phrases: Option<&Phrases>,
        work_dir: &Path,
        stop: &AtomicBool,
        on_progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<Option<Self>> {
        config.validate()?;
        let _lock = FolderLock::acquire(work_dir)?;
        let checkpoint = Checkpoint::new(work_dir, files, phrases)?;
        let reading = &mut |done, total| on_progress(Progress::Reading(done, total));
        let encoded = corpus::encode(files, config, phrases, work_dir, reading)?;
        let vocabulary = encoded.vocabulary;
        let num_words = vocabulary.words.len();
        if num_words < 2 {
            let path = files.first().map_or(work_dir, PathBuf::as_path);
            let min_count = config.min_count;
            return Err(Error::folder(
                path,
                format!(
                    "found {num_words} words with a count of at least {min_count} (min_count), expected two or more"
                ),
            ));
        }
        let context = TrainingContext::new(config, &vocabulary.words, &vocabulary.counts);
        let mut matrices = initial_matrices(config, num_words);
        let first_epoch = checkpoint.restore(config, &mut matrices)?;
        let corpus = MappedCorpus::open(&encoded.file)?;
        let total = vocabulary.total_count() * config.epochs as u64;
        let training = |done| on_progress(Progress::Training(done, total));
        for epoch in first_epoch..config.epochs {
            if !train_epoch(&context, &mut matrices, corpus.ids(), epoch, stop, &training) {
                return Ok(None);
            }
            if epoch + 1 < config.epochs {
                checkpoint.save(config, &matrices, epoch + 1)?;
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
            }
        }
        drop(context);
        Ok(Some(Self {
            vocabulary,
            vector_size: config.vector_size,
            input: without_padding(matrices.input, matrices.stride, config.vector_size),
            output: without_padding(matrices.output, matrices.stride, config.vector_size),
            uses_negative_sampling: config.negative > 0,
            architecture: config.architecture,
            subwords: config.subwords.clone(),
            normalized: OnceLock::new(),
        }))
    }
}
