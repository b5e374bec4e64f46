//! One pass over the corpus by all threads, which update the same matrices without locks: *Hogwild!*
//! ([Recht et al., 2011](https://arxiv.org/abs/1106.5730)), as the original word2vec does.

use super::{
    corpus::SENTENCE_END,
    kernels::SharedRows,
    sampling::Rng,
    worker::{TrainingContext, Worker},
};
use std::{
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

/// Minimum number of ids in a chunk; the learning rate changes from chunk to chunk.
const CHUNK_SIZE: usize = 10_000;

/// The matrices under training, with rows padded to `stride`.
pub(super) struct Matrices {
    /// Vectors of words, then of n-gram buckets.
    pub(super) input: Vec<f32>,
    /// Output weights of words or of the inner nodes of the Huffman tree.
    pub(super) output: Vec<f32>,
    pub(super) stride: usize,
}

/// Offsets of chunks of whole sentences, with the start and the end of the corpus.
fn chunk_offsets(corpus: &[u32]) -> Vec<usize> {
    let mut offsets = vec![0];
    let mut size = 0;
    for (position, id) in corpus.iter().enumerate() {
        size += 1;
        if *id == SENTENCE_END && size >= CHUNK_SIZE {
            offsets.push(position + 1);
            size = 0;
        }
    }
    if offsets.last() != Some(&corpus.len()) {
        offsets.push(corpus.len());
    }
    offsets
}

/// Trains for one epoch. `on_progress` receives the number of words trained on, all epochs together. Returns whether
/// the epoch was completed.
pub(super) fn train_epoch(
    context: &TrainingContext<'_>,
    matrices: &mut Matrices,
    corpus: &[u32],
    epoch: usize,
    stop: &AtomicBool,
    on_progress: &(dyn Fn(u64) + Sync),
) -> bool {
    let config = context.config;
    let corpus_words = context.counts.iter().sum::<u64>();
    let total_words = corpus_words * config.epochs as u64;
    let words_done = AtomicU64::new(corpus_words * epoch as u64);
    let num_threads = config.workers.max(1);
    // Threads take the chunks in corpus order, so that the end of the corpus is trained on last.
    let (offsets, next_chunk) = (chunk_offsets(corpus), AtomicUsize::new(0));
    let (input, output) = (matrices.input.as_mut_ptr() as usize, matrices.output.as_mut_ptr() as usize);
    let stride = matrices.stride;
    let (running, interrupted) = (AtomicU64::new(num_threads as u64), AtomicBool::new(false));
    on_progress(words_done.load(Ordering::Relaxed));
    std::thread::scope(|scope| {
        for _ in 0..num_threads {
            let (words_done, offsets, next_chunk) = (&words_done, &offsets, &next_chunk);
            let (running, interrupted) = (&running, &interrupted);
            scope.spawn(move || {
                let rows = |start: usize| SharedRows::new(start as *mut f32, stride);
                let mut worker = Worker::new(context, rows(input), rows(output), stride);
                loop {
                    let chunk = next_chunk.fetch_add(1, Ordering::Relaxed);
                    let Some([start, end]) = offsets.get(chunk..chunk + 2) else { break };
                    if stop.load(Ordering::Relaxed) {
                        interrupted.store(true, Ordering::Relaxed);
                        break;
                    }
                    let remaining = (1.0 - words_done.load(Ordering::Relaxed) as f64 / total_words as f64).max(0.0);
                    worker.alpha = (config.min_alpha + (config.alpha - config.min_alpha) * remaining) as f32;
                    // Seeded by the chunk alone, so that it does not matter which thread takes it.
                    worker.rng = Rng::new(config.seed ^ (epoch as u64) << 48 ^ (chunk as u64 + 1) << 16);
                    // SAFETY: the matrices have a row for every id of the corpus and outlive the scope.
                    let num_words = unsafe { worker.train_chunk(&corpus[*start..*end]) };
                    words_done.fetch_add(num_words, Ordering::Relaxed);
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while running.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(20));
            on_progress(words_done.load(Ordering::Relaxed));
        }
    });
    !interrupted.load(Ordering::Relaxed)
}
