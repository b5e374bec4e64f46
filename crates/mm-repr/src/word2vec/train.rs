//! The learning itself: skip-gram and continuous bag of words (Mikolov 2013) by negative sampling or hierarchical softmax, words alone
//! or with their n-grams (Bojanowski 2017). Threads write into the same matrices without locks, as the original program's do (Hogwild,
//! Recht 2011); one thread alone is deterministic.
//!
//! The negatives of a whole window are drawn before any of them is needed, and their rows are asked of memory at once: the matrix is
//! larger than the near caches. Where some of a window's words share them (Ji 2016), the rows stay near: twice as fast.

// The loops are compiled for several processors; what they call must be compiled with them.
#![allow(clippy::inline_always)]

use super::{Architecture, SubwordConfig, Word2VecConfig, corpus::END};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Numbers of a row are padded to a multiple of this, so that the loops below have no rest.
pub(super) const LANES: usize = 16;

/// Matrices that every thread writes into.
pub(super) struct Matrices {
    pub(super) input: Vec<f32>,
    pub(super) output: Vec<f32>,
    pub(super) stride: usize,
}

/// Everything that does not change while training.
pub(super) struct Plan<'a> {
    pub(super) config: &'a Word2VecConfig,
    /// How often each word is there.
    pub(super) counts: &'a [u64],
    /// For each word the rows of its n-grams, one after the other; empty without subwords.
    pub(super) grams: Grams,
    pub(super) tree: Option<Tree>,
    negatives: Alias,
    /// For each word the chance to be kept, of 2³².
    keep: Vec<u32>,
    sigmoid: Vec<f32>,
}

/// n-gram rows of every word.
#[derive(Default)]
pub(super) struct Grams {
    starts: Vec<usize>,
    rows: Vec<u32>,
}

impl Grams {
    pub(super) fn new(words: &[String], subwords: Option<&SubwordConfig>) -> Self {
        let Some(subwords) = subwords else { return Self::default() };
        let mut grams = Self { starts: vec![0], rows: Vec::new() };
        for word in words {
            grams.rows.extend(subwords.grams(word).map(|g| words.len() as u32 + g));
            grams.starts.push(grams.rows.len());
        }
        grams
    }

    pub(super) fn of(&self, word: u32) -> &[u32] {
        match self.starts.get(word as usize..word as usize + 2) {
            Some([from, to]) => &self.rows[*from..*to],
            _ => &[],
        }
    }
}

/// Huffman's tree over the vocabulary: frequent words have short ways.
pub(super) struct Tree {
    /// For each word the inner nodes on its way and the turns.
    ways: Vec<Vec<(u32, bool)>>,
}

impl Tree {
    pub(super) fn new(counts: &[u64]) -> Self {
        let words = counts.len();
        // The two-queue way: leaves from the rarest on, inner nodes in the order they are made.
        let mut weight: Vec<u64> = counts.to_vec();
        let (mut parent, mut turn) = (vec![0usize; 2 * words], vec![false; 2 * words]);
        let (mut leaf, mut inner) = (words, words);
        for _ in 0..words.saturating_sub(1) {
            let mut next = || {
                if leaf > 0 && (inner >= weight.len() || weight[leaf - 1] < weight[inner]) {
                    leaf -= 1;
                    leaf
                } else {
                    inner += 1;
                    inner - 1
                }
            };
            let (first, second) = (next(), next());
            let node = weight.len();
            weight.push(weight[first] + weight[second]);
            (parent[first], parent[second], turn[second]) = (node, node, true);
        }
        let root = weight.len() - 1;
        let way = |word: usize| {
            let (mut node, mut way) = (word, Vec::new());
            while node != root {
                way.push(((parent[node] - words) as u32, turn[node]));
                node = parent[node];
            }
            way.reverse();
            way
        };
        Self { ways: (0..words).map(way).collect() }
    }
}

/// Draws a word in proportion to a weight in two looks (Walker 1977).
struct Alias {
    /// (chance of 2³² to stay, where to go otherwise).
    table: Vec<(u32, u32)>,
}

impl Alias {
    fn new(weights: &[f64]) -> Self {
        let (count, sum) = (weights.len(), weights.iter().sum::<f64>());
        let mut share: Vec<f64> = weights.iter().map(|w| w / sum * count as f64).collect();
        let mut table: Vec<(u32, u32)> = (0..count as u32).map(|i| (u32::MAX, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(|i| share[*i] < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
            table[less] = ((share[less] * f64::from(u32::MAX)) as u32, more as u32);
            share[more] -= 1.0 - share[less];
            if share[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Self { table }
    }

    #[inline(always)]
    fn draw(&self, random: &mut Random) -> u32 {
        let (place, chance) = (random.below(self.table.len() as u64), random.next() >> 32);
        let (stay, other) = self.table[place as usize];
        if chance as u32 <= stay { place as u32 } else { other }
    }
}

/// A small generator (wyrand): its quality is enough for drawing words, and it costs a multiplication.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let wide = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (wide >> 64) as u64 ^ wide as u64
    }

    #[inline(always)]
    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Words of a piece of the corpus, about: the learning rate falls from piece to piece.
const PIECE: usize = 10_000;

/// Words on each side, at most.
pub(super) const MOST_WINDOW: usize = 100;

/// Words of a window that share their negatives: as good as own ones, and the rows stay near. All of a window sharing them is hardly faster and
/// costs a point on WordSim-353.
const SHARED: usize = 3;

const SIGMOID_RANGE: f32 = 6.0;
const SIGMOID_STEPS: usize = 1024;

impl<'a> Plan<'a> {
    pub(super) fn new(config: &'a Word2VecConfig, words: &[String], counts: &'a [u64]) -> Self {
        let total = counts.iter().sum::<u64>() as f64;
        let threshold = config.sample * total;
        let keep = |count: &u64| {
            let count = *count as f64;
            let chance = if threshold > 0.0 { ((count / threshold).sqrt() + 1.0) * threshold / count } else { 1.0 };
            (chance.min(1.0) * f64::from(u32::MAX)) as u32
        };
        let weights: Vec<f64> = counts.iter().map(|c| (*c as f64).powf(config.ns_exponent)).collect();
        let point = |i: usize| {
            let x = ((i as f32 + 0.5) / SIGMOID_STEPS as f32 * 2.0 - 1.0) * SIGMOID_RANGE;
            1.0 / (1.0 + (-x).exp())
        };
        Self {
            config,
            counts,
            grams: Grams::new(words, config.subwords.as_ref()),
            tree: (config.negative == 0).then(|| Tree::new(counts)),
            negatives: Alias::new(&weights),
            keep: counts.iter().map(keep).collect(),
            sigmoid: (0..SIGMOID_STEPS).map(point).collect(),
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

/// Rows of a matrix that other threads write into at the same time; a lost update is part of the method.
#[derive(Clone, Copy)]
struct Rows {
    start: *mut f32,
    stride: usize,
}

impl Rows {
    #[inline(always)]
    fn row(self, number: u32) -> *mut f32 {
        // SAFETY: every number comes from the vocabulary that the matrix was made for.
        unsafe { self.start.add(number as usize * self.stride) }
    }
}

impl Rows {
    /// Asks memory for a row before it is needed.
    #[inline(always)]
    fn fetch(self, number: u32) {
        #[cfg(target_arch = "x86_64")]
        for line in (0..self.stride).step_by(16) {
            // SAFETY: a hint; the row is of the matrix.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                    self.row(number).add(line).cast(),
                );
            }
        }
    }
}

/// Σ a·b over a multiple of [`LANES`] numbers.
#[inline(always)]
unsafe fn dot<const FUSED: bool>(a: *const f32, b: *const f32, length: usize) -> f32 {
    let mut sums = [0f32; LANES];
    let mut at = 0;
    while at < length {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: both rows have `length` numbers.
            let (x, y) = unsafe { (*a.add(at + lane), *b.add(at + lane)) };
            *sum = if FUSED { x.mul_add(y, *sum) } else { *sum + x * y };
        }
        at += LANES;
    }
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

/// `y += by · x`.
#[inline(always)]
unsafe fn add<const FUSED: bool>(y: *mut f32, by: f32, x: *const f32, length: usize) {
    for at in 0..length {
        // SAFETY: both rows have `length` numbers.
        unsafe {
            let new = if FUSED { (*x.add(at)).mul_add(by, *y.add(at)) } else { *y.add(at) + by * *x.add(at) };
            *y.add(at) = new;
        }
    }
}

/// `e += by · out; out += by · h`, in one pass.
#[inline(always)]
unsafe fn exchange<const FUSED: bool>(e: *mut f32, out: *mut f32, h: *const f32, by: f32, length: usize) {
    for at in 0..length {
        // SAFETY: the three rows have `length` numbers.
        unsafe {
            let (old, x) = (*out.add(at), *h.add(at));
            let (error, new) = if FUSED {
                (old.mul_add(by, *e.add(at)), x.mul_add(by, old))
            } else {
                (*e.add(at) + by * old, old + by * x)
            };
            *e.add(at) = error;
            *out.add(at) = new;
        }
    }
}

/// One thread's place in the corpus and its working memory.
struct Worker<'a> {
    plan: &'a Plan<'a>,
    input: Rows,
    output: Rows,
    width: usize,
    alpha: f32,
    random: Random,
    hidden: Vec<f32>,
    error: Vec<f32>,
    /// Output rows of a position and whether each is the right one.
    targets: Vec<(u32, f32)>,
}

impl Worker<'_> {
    /// Adds what a context is held against: the word and its negatives, or the nodes on its way.
    #[inline(always)]
    fn aim(&mut self, word: u32) {
        if let Some(tree) = &self.plan.tree {
            self.targets
                .extend(tree.ways[word as usize].iter().map(|(node, turn)| (*node, if *turn { 0.0 } else { 1.0 })));
            return;
        }
        self.targets.push((word, 1.0));
        for _ in 0..self.plan.config.negative {
            let other = self.plan.negatives.draw(&mut self.random);
            if other != word {
                self.output.fetch(other);
                self.targets.push((other, 0.0));
            }
        }
    }

    /// Moves the targets' rows towards what was seen and leaves in `error` what the hidden row is to be moved by.
    #[inline(always)]
    unsafe fn learn<const FUSED: bool>(&mut self, hidden: *const f32, from: usize, to: usize) {
        self.error.fill(0.0);
        for (row, label) in &self.targets[from..to] {
            let out = self.output.row(*row);
            // SAFETY: rows of the width that both matrices have.
            unsafe {
                let right = self.plan.sigmoid(dot::<FUSED>(hidden, out, self.width));
                exchange::<FUSED>(self.error.as_mut_ptr(), out, hidden, (label - right) * self.alpha, self.width);
            }
        }
    }

    /// The mean of a word's row and its n-grams' rows in `hidden`.
    #[inline(always)]
    unsafe fn gather<const FUSED: bool>(&mut self, word: u32) {
        let grams = self.plan.grams.of(word);
        let share = 1.0 / (grams.len() + 1) as f32;
        // SAFETY: rows of the width that the matrix has.
        unsafe {
            add::<FUSED>(self.hidden.as_mut_ptr(), share, self.input.row(word), self.width);
            for gram in grams {
                add::<FUSED>(self.hidden.as_mut_ptr(), share, self.input.row(*gram), self.width);
            }
        }
    }

    #[inline(always)]
    unsafe fn spread<const FUSED: bool>(&mut self, word: u32, by: f32) {
        // SAFETY: as above.
        unsafe {
            add::<FUSED>(self.input.row(word), by, self.error.as_ptr(), self.width);
            for gram in self.plan.grams.of(word) {
                add::<FUSED>(self.input.row(*gram), by, self.error.as_ptr(), self.width);
            }
        }
    }

    #[inline(always)]
    unsafe fn sentence<const FUSED: bool>(&mut self, words: &[u32]) {
        let window = self.plan.config.window.clamp(1, MOST_WINDOW);
        for place in 0..words.len() {
            let reach =
                if self.plan.config.shrink_windows { 1 + self.random.below(window as u64) as usize } else { window };
            let (from, to) = (place.saturating_sub(reach), (place + reach + 1).min(words.len()));
            if to - from < 2 {
                continue;
            }
            self.targets.clear();
            // SAFETY: the numbers of words are of the vocabulary.
            unsafe {
                match self.plan.config.architecture {
                    Architecture::SkipGram => {
                        // The way through a tree is the same for each; negatives are for a few words beside each other (Ji 2016), or are
                        // drawn anew.
                        let alike = match (&self.plan.tree, self.plan.config.share_negatives) {
                            (Some(_), _) => 2 * MOST_WINDOW,
                            (None, true) => SHARED,
                            (None, false) => 1,
                        };
                        let mut ends = [0usize; 2 * MOST_WINDOW];
                        for end in &mut ends[..(to - from - 1).div_ceil(alike)] {
                            self.aim(words[place]);
                            *end = self.targets.len();
                        }
                        for (number, other) in (from..to).filter(|o| *o != place).enumerate() {
                            let turn = number / alike;
                            let (first, last) = (if turn == 0 { 0 } else { ends[turn - 1] }, ends[turn]);
                            let word = words[other];
                            if self.plan.grams.of(word).is_empty() {
                                let row = self.input.row(word);
                                self.learn::<FUSED>(row, first, last);
                                add::<FUSED>(row, 1.0, self.error.as_ptr(), self.width);
                            } else {
                                self.hidden.fill(0.0);
                                self.gather::<FUSED>(word);
                                let hidden = self.hidden.as_ptr();
                                self.learn::<FUSED>(hidden, first, last);
                                self.spread::<FUSED>(word, 1.0);
                            }
                        }
                    }
                    Architecture::Cbow => {
                        self.aim(words[place]);
                        self.hidden.fill(0.0);
                        for other in (from..to).filter(|o| *o != place) {
                            self.gather::<FUSED>(words[other]);
                        }
                        let share = 1.0 / (to - from - 1) as f32;
                        self.hidden.iter_mut().for_each(|v| *v *= share);
                        let hidden = self.hidden.as_ptr();
                        self.learn::<FUSED>(hidden, 0, self.targets.len());
                        for other in (from..to).filter(|o| *o != place) {
                            self.spread::<FUSED>(words[other], 1.0);
                        }
                    }
                }
            }
        }
    }

    /// A piece of the corpus, of whole sentences; how many words it has.
    #[inline(always)]
    unsafe fn piece<const FUSED: bool>(&mut self, corpus: &[u32]) -> u64 {
        let mut words = Vec::with_capacity(256);
        let mut count = 0u64;
        for id in corpus {
            if *id != END {
                count += 1;
                let kept = self.plan.keep[*id as usize];
                if kept == u32::MAX || (self.random.next() >> 32) as u32 <= kept {
                    words.push(*id);
                }
                continue;
            }
            // SAFETY: the corpus holds numbers of the vocabulary.
            unsafe { self.sentence::<FUSED>(&words) };
            words.clear();
        }
        count
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx2,fma")]
unsafe fn piece_512(worker: &mut Worker<'_>, corpus: &[u32]) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { worker.piece::<true>(corpus) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn piece_256(worker: &mut Worker<'_>, corpus: &[u32]) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { worker.piece::<true>(corpus) }
}

/// One pass over the corpus by all threads, the `number`th; whether it went to the end.
pub(super) fn epoch(
    plan: &Plan<'_>,
    matrices: &mut Matrices,
    corpus: &[u32],
    number: usize,
    stop: &AtomicBool,
    told: &(dyn Fn(u64) + Sync),
) -> bool {
    let config = plan.config;
    let words = plan.counts.iter().sum::<u64>();
    let (all, seen) = (words * config.epochs as u64, AtomicU64::new(words * number as u64));
    let threads = config.workers.max(1);
    // Pieces of whole sentences, taken by the threads in the order of the corpus: what stands last in it is learned last.
    let mut cuts = vec![0];
    let mut since = 0;
    for (at, id) in corpus.iter().enumerate() {
        since += 1;
        if *id == END && since >= PIECE {
            cuts.push(at + 1);
            since = 0;
        }
    }
    if cuts.last() != Some(&corpus.len()) {
        cuts.push(corpus.len());
    }
    let (cuts, next) = (&cuts, &AtomicUsize::new(0));
    let (input, output) = (matrices.input.as_mut_ptr() as usize, matrices.output.as_mut_ptr() as usize);
    let stride = matrices.stride;
    told(seen.load(Ordering::Relaxed));
    let (running, cut) = (AtomicU64::new(threads as u64), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (seen, running, cut) = (&seen, &running, &cut);
            scope.spawn(move || {
                let rows = |start: usize| Rows { start: start as *mut f32, stride };
                let mut worker = Worker {
                    plan,
                    input: rows(input),
                    output: rows(output),
                    width: stride,
                    alpha: config.alpha as f32,
                    random: Random::new(0),
                    hidden: vec![0.0; stride],
                    error: vec![0.0; stride],
                    targets: Vec::with_capacity(64),
                };
                loop {
                    let piece = next.fetch_add(1, Ordering::Relaxed);
                    let Some([from, to]) = cuts.get(piece..piece + 2) else { break };
                    if stop.load(Ordering::Relaxed) {
                        cut.store(true, Ordering::Relaxed);
                        break;
                    }
                    let left = (1.0 - seen.load(Ordering::Relaxed) as f64 / all as f64).max(0.0);
                    worker.alpha = (config.min_alpha + (config.alpha - config.min_alpha) * left) as f32;
                    // Of the place alone, so that it does not matter which thread takes it.
                    worker.random = Random::new(config.seed ^ (number as u64) << 48 ^ (piece as u64 + 1) << 16);
                    let part = &corpus[*from..*to];
                    // SAFETY: the matrices have a row for every number of the corpus and outlive the scope; the features were asked for.
                    let words = unsafe {
                        #[cfg(target_arch = "x86_64")]
                        if std::arch::is_x86_feature_detected!("avx512vl")
                            && std::arch::is_x86_feature_detected!("avx512bw")
                        {
                            piece_512(&mut worker, part)
                        } else if std::arch::is_x86_feature_detected!("avx2")
                            && std::arch::is_x86_feature_detected!("fma")
                        {
                            piece_256(&mut worker, part)
                        } else {
                            worker.piece::<false>(part)
                        }
                        #[cfg(not(target_arch = "x86_64"))]
                        worker.piece::<false>(part)
                    };
                    seen.fetch_add(words, Ordering::Relaxed);
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
        while running.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
            told(seen.load(Ordering::Relaxed));
        }
    });
    !cut.load(Ordering::Relaxed)
}
