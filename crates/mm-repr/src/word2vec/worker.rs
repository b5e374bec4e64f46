//! One training thread: stochastic gradient descent over a chunk of the corpus.
//!
//! The negatives of a whole window are sampled before the first is needed and their rows are prefetched, because the
//! output matrix is larger than the near caches.

// Compiled for several instruction sets together with everything that is called.
#![allow(clippy::inline_always)]

use super::{
    config::{Architecture, MAX_WINDOW, Word2VecConfig},
    corpus::SENTENCE_END,
    huffman::HuffmanTree,
    kernels::{SharedRows, axpy, dot, update_output},
    sampling::{AliasTable, Rng},
    subwords::NgramTable,
};
use std::ops::Range;

/// Consecutive context words that share their negatives (*Parallelizing Word2Vec in Shared and Distributed Memory*,
/// [Ji et al., 2016](https://arxiv.org/abs/1604.04661)). Three are as accurate as one and keep the rows in the cache;
/// a whole window is hardly faster and costs a point on WordSim-353.
const SHARED_NEGATIVES: usize = 3;

/// Range and resolution of the tabulated sigmoid.
const SIGMOID_RANGE: f32 = 6.0;
const SIGMOID_STEPS: usize = 1024;

/// Read-only state that all threads share.
pub(super) struct TrainingContext<'a> {
    pub(super) config: &'a Word2VecConfig,
    /// Count of each word.
    pub(super) counts: &'a [u64],
    ngrams: NgramTable,
    /// Only for hierarchical softmax.
    tree: Option<HuffmanTree>,
    negatives: AliasTable,
    /// For each word, the probability of keeping an occurrence, scaled to 2³².
    keep: Vec<u32>,
    sigmoid: Vec<f32>,
}

impl<'a> TrainingContext<'a> {
    pub(super) fn new(config: &'a Word2VecConfig, words: &[String], counts: &'a [u64]) -> Self {
        let total = counts.iter().sum::<u64>() as f64;
        let threshold = config.sample * total;
        let keep = |count: &u64| {
            let count = *count as f64;
            let probability =
                if threshold > 0.0 { ((count / threshold).sqrt() + 1.0) * threshold / count } else { 1.0 };
            (probability.min(1.0) * f64::from(u32::MAX)) as u32
        };
        let weights: Vec<f64> = counts.iter().map(|c| (*c as f64).powf(config.ns_exponent)).collect();
        let sigmoid = |step: usize| {
            let x = ((step as f32 + 0.5) / SIGMOID_STEPS as f32 * 2.0 - 1.0) * SIGMOID_RANGE;
            1.0 / (1.0 + (-x).exp())
        };
        Self {
            config,
            counts,
            ngrams: NgramTable::new(words, config.subwords.as_ref()),
            tree: (config.negative == 0).then(|| HuffmanTree::new(counts)),
            negatives: AliasTable::new(&weights),
            keep: counts.iter().map(keep).collect(),
            sigmoid: (0..SIGMOID_STEPS).map(sigmoid).collect(),
        }
    }

    #[inline(always)]
    fn sigmoid(&self, x: f32) -> f32 {
        if x >= SIGMOID_RANGE {
            return 1.0;
        }
        if x <= -SIGMOID_RANGE {
            return 0.0;
        }
        self.sigmoid[((x / SIGMOID_RANGE + 1.0) * 0.5 * SIGMOID_STEPS as f32) as usize & (SIGMOID_STEPS - 1)]
    }
}

/// State of one thread.
pub(super) struct Worker<'a> {
    context: &'a TrainingContext<'a>,
    /// Vectors of words, then of n-grams.
    input: SharedRows,
    /// Output weights of words or of the inner nodes of the tree.
    output: SharedRows,
    /// Padded row length.
    stride: usize,
    pub(super) alpha: f32,
    pub(super) rng: Rng,
    hidden: Vec<f32>,
    gradient: Vec<f32>,
    /// Output rows and labels (1 or 0) of the current position.
    targets: Vec<(u32, f32)>,
}

impl<'a> Worker<'a> {
    pub(super) fn new(context: &'a TrainingContext<'a>, input: SharedRows, output: SharedRows, stride: usize) -> Self {
        Self {
            context,
            input,
            output,
            stride,
            alpha: context.config.alpha as f32,
            rng: Rng::new(0),
            hidden: vec![0.0; stride],
            gradient: vec![0.0; stride],
            targets: Vec::with_capacity(64),
        }
    }

    /// Trains on a chunk of whole sentences and returns the number of words read.
    ///
    /// # Safety
    /// Ids in `corpus` are below the number of rows of both matrices, which outlive the worker.
    pub(super) unsafe fn train_chunk(&mut self, corpus: &[u32]) -> u64 {
        // SAFETY: the caller's promise; each variant runs only where its instruction set was detected.
        unsafe {
            #[cfg(target_arch = "x86_64")]
            {
                use std::arch::is_x86_feature_detected as detected;
                if detected!("avx512vl") && detected!("avx512bw") {
                    return train_chunk_avx512(self, corpus);
                }
                if detected!("avx2") && detected!("fma") {
                    return train_chunk_avx2(self, corpus);
                }
            }
            self.train_chunk_with::<false>(corpus)
        }
    }

    #[inline(always)]
    unsafe fn train_chunk_with<const FMA: bool>(&mut self, corpus: &[u32]) -> u64 {
        let mut sentence = Vec::with_capacity(256);
        let mut num_words = 0u64;
        for id in corpus {
            if *id != SENTENCE_END {
                num_words += 1;
                let keep = self.context.keep[*id as usize];
                if keep == u32::MAX || (self.rng.next() >> 32) as u32 <= keep {
                    sentence.push(*id);
                }
                continue;
            }
            // SAFETY: the caller's promise.
            unsafe { self.train_sentence::<FMA>(&sentence) };
            sentence.clear();
        }
        num_words
    }

    #[inline(always)]
    unsafe fn train_sentence<const FMA: bool>(&mut self, words: &[u32]) {
        let config = self.context.config;
        let window = config.window.clamp(1, MAX_WINDOW);
        for center in 0..words.len() {
            let radius = if config.shrink_windows { 1 + self.rng.below(window as u64) as usize } else { window };
            let context = center.saturating_sub(radius)..(center + radius + 1).min(words.len());
            if context.len() < 2 {
                continue;
            }
            self.targets.clear();
            // SAFETY: the caller's promise.
            unsafe {
                match config.architecture {
                    Architecture::SkipGram => self.train_skip_gram::<FMA>(words, center, context),
                    Architecture::Cbow => self.train_cbow::<FMA>(words, center, context),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn train_skip_gram<const FMA: bool>(&mut self, words: &[u32], center: usize, context: Range<usize>) {
        // The path through the tree is the same for every context word; negatives are shared by a few or sampled for
        // each.
        let group = match (&self.context.tree, self.context.config.share_negatives) {
            (Some(_), _) => 2 * MAX_WINDOW,
            (None, true) => SHARED_NEGATIVES,
            (None, false) => 1,
        };
        let mut group_ends = [0usize; 2 * MAX_WINDOW];
        for end in &mut group_ends[..(context.len() - 1).div_ceil(group)] {
            self.push_targets(words[center]);
            *end = self.targets.len();
        }
        for (number, position) in context.filter(|p| *p != center).enumerate() {
            let index = number / group;
            let targets = (if index == 0 { 0 } else { group_ends[index - 1] })..group_ends[index];
            let word = words[position];
            // SAFETY: rows of both matrices have `stride` elements.
            unsafe {
                if self.context.ngrams.rows(word).is_empty() {
                    let row = self.input.row(word);
                    self.update_targets::<FMA>(row, targets);
                    axpy::<FMA>(row, 1.0, self.gradient.as_ptr(), self.stride);
                } else {
                    self.hidden.fill(0.0);
                    self.add_to_hidden::<FMA>(word);
                    let hidden = self.hidden.as_ptr();
                    self.update_targets::<FMA>(hidden, targets);
                    self.update_input::<FMA>(word);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn train_cbow<const FMA: bool>(&mut self, words: &[u32], center: usize, context: Range<usize>) {
        self.push_targets(words[center]);
        self.hidden.fill(0.0);
        // SAFETY: rows of both matrices have `stride` elements.
        unsafe {
            for position in context.clone().filter(|p| *p != center) {
                self.add_to_hidden::<FMA>(words[position]);
            }
            let scale = 1.0 / (context.len() - 1) as f32;
            self.hidden.iter_mut().for_each(|v| *v *= scale);
            let hidden = self.hidden.as_ptr();
            self.update_targets::<FMA>(hidden, 0..self.targets.len());
            for position in context.filter(|p| *p != center) {
                self.update_input::<FMA>(words[position]);
            }
        }
    }

    /// Adds the output rows of a center word: itself and its negatives, or the nodes on its path.
    #[inline(always)]
    fn push_targets(&mut self, word: u32) {
        if let Some(tree) = &self.context.tree {
            let label = |is_right: bool| if is_right { 0.0 } else { 1.0 };
            self.targets.extend(tree.path(word).iter().map(|(node, is_right)| (*node, label(*is_right))));
            return;
        }
        self.targets.push((word, 1.0));
        for _ in 0..self.context.config.negative {
            let negative = self.context.negatives.sample(&mut self.rng);
            if negative != word {
                self.output.prefetch(negative);
                self.targets.push((negative, 0.0));
            }
        }
    }

    /// Updates the output rows of some targets and leaves the update of the hidden layer in `gradient`.
    #[inline(always)]
    unsafe fn update_targets<const FMA: bool>(&mut self, hidden: *const f32, targets: Range<usize>) {
        self.gradient.fill(0.0);
        for (row, label) in &self.targets[targets] {
            let output = self.output.row(*row);
            // SAFETY: rows have `stride` elements.
            unsafe {
                let probability = self.context.sigmoid(dot::<FMA>(hidden, output, self.stride));
                let step = (label - probability) * self.alpha;
                update_output::<FMA>(self.gradient.as_mut_ptr(), output, hidden, step, self.stride);
            }
        }
    }

    /// Adds to `hidden` the mean of a word's row and the rows of its n-grams.
    #[inline(always)]
    unsafe fn add_to_hidden<const FMA: bool>(&mut self, word: u32) {
        let ngrams = self.context.ngrams.rows(word);
        let scale = 1.0 / (ngrams.len() + 1) as f32;
        // SAFETY: rows have `stride` elements.
        unsafe {
            axpy::<FMA>(self.hidden.as_mut_ptr(), scale, self.input.row(word), self.stride);
            for ngram in ngrams {
                axpy::<FMA>(self.hidden.as_mut_ptr(), scale, self.input.row(*ngram), self.stride);
            }
        }
    }

    /// Adds `gradient` to a word's row and the rows of its n-grams.
    #[inline(always)]
    unsafe fn update_input<const FMA: bool>(&mut self, word: u32) {
        // SAFETY: rows have `stride` elements.
        unsafe {
            axpy::<FMA>(self.input.row(word), 1.0, self.gradient.as_ptr(), self.stride);
            for ngram in self.context.ngrams.rows(word) {
                axpy::<FMA>(self.input.row(*ngram), 1.0, self.gradient.as_ptr(), self.stride);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx2,fma")]
unsafe fn train_chunk_avx512(worker: &mut Worker<'_>, corpus: &[u32]) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { worker.train_chunk_with::<true>(corpus) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn train_chunk_avx2(worker: &mut Worker<'_>, corpus: &[u32]) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { worker.train_chunk_with::<true>(corpus) }
}
