//! Random numbers and weighted sampling of words.

// Called in the inner loops, which are compiled for several instruction sets.
#![allow(clippy::inline_always)]

/// The wyrand generator: one multiplication per number.
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    #[inline(always)]
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// Uniform in `0..bound`.
    #[inline(always)]
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Samples indices in proportion to their weights in constant time: the alias method, *An Efficient Method for
/// Generating Discrete Random Variables with General Distributions*
/// ([Walker, 1977](https://doi.org/10.1145/355744.355749)).
pub(super) struct AliasTable {
    /// For each index, the probability of keeping it (scaled to 2³²) and the index that replaces it otherwise.
    entries: Vec<(u32, u32)>,
}

impl AliasTable {
    pub(super) fn new(weights: &[f64]) -> Self {
        let (count, sum) = (weights.len(), weights.iter().sum::<f64>());
        let mut scaled: Vec<f64> = weights.iter().map(|w| w / sum * count as f64).collect();
        let mut entries: Vec<(u32, u32)> = (0..count as u32).map(|i| (u32::MAX, i)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(|i| scaled[*i] < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.last().copied()) {
            entries[less] = ((scaled[less] * f64::from(u32::MAX)) as u32, more as u32);
            scaled[more] -= 1.0 - scaled[less];
            if scaled[more] < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        Self { entries }
    }

    #[inline(always)]
    pub(super) fn sample(&self, rng: &mut Rng) -> u32 {
        let (index, threshold) = (rng.below(self.entries.len() as u64), rng.next() >> 32);
        let (keep, alias) = self.entries[index as usize];
        if threshold as u32 <= keep { index as u32 } else { alias }
    }
}
