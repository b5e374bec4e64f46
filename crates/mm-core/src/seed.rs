//! Seeds: every random choice is a function of the run's seed and of its position (epoch, row, …), not of how many were
//! made before. A run that is resumed, or loads its data with another number of workers, makes the same choices.

/// Derives a seed from several parts (`SplitMix64`).
///
/// *Fast Splittable Pseudorandom Number Generators* (Steele et al., 2014), <https://doi.org/10.1145/2660193.2660195>.
pub fn derive_seed(parts: &[u64]) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for part in parts {
        state = state.wrapping_add(*part).wrapping_add(0x9E37_79B9_7F4A_7C15);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state ^= state >> 31;
    }
    state
}

/// Seeds libtorch's generators (dropout, initialization) on every device.
pub fn manual_seed(seed: u64) {
    // Only the bits matter.
    tch::manual_seed(seed as i64);
}

/// A small random number generator for augmentation and sampling (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator for one position, for instance `[seed, epoch, row]`.
    pub fn new(parts: &[u64]) -> Self {
        Self(derive_seed(parts))
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1).
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn uniform_range(&mut self, low: f64, high: f64) -> f64 {
        low + self.uniform() * (high - low)
    }

    /// Uniform in 0..n; 0 when n is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n == 0 { 0 } else { (((self.next_u64() as u128) * (n as u128)) >> 64) as usize }
    }

    /// Shuffles `items` (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_give_equal_sequences() {
        let sequence = |parts: &[u64]| {
            (0..4)
                .map({
                    let mut r = Rng::new(parts);
                    move |_| r.next_u64()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(sequence(&[1, 2, 3]), sequence(&[1, 2, 3]));
        assert_ne!(sequence(&[1, 2, 3]), sequence(&[1, 3, 2]));
        let mut order: Vec<usize> = (0..100).collect();
        Rng::new(&[7]).shuffle(&mut order);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
