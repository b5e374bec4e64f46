//! Vector operations on rows of the shared matrices.
//!
//! Threads read and write the same rows without locks, so that every element is accessed as a relaxed atomic: a value
//! may be old, but never torn or undefined. The compiler does not vectorize atomics (three to four times slower), so on
//! processors with AVX2 the accesses are one instruction for eight elements, which stands for eight relaxed accesses:
//! an element of four aligned bytes is never split.
//!
//! `FMA` selects these and fused multiply-add; it is set in code compiled for processors that have both.

// Compiled into the inner loops for several instruction sets.
#![allow(clippy::inline_always)]

use std::{
    array::from_fn,
    sync::atomic::{AtomicU32, Ordering},
};

/// Rows are padded to a multiple of this many elements, so that the loops have no remainder.
pub(super) const LANES: usize = 16;

/// Elements of one access.
const WIDTH: usize = 8;

/// A matrix that several threads update without locks.
#[derive(Clone, Copy)]
pub(super) struct SharedRows {
    start: *mut f32,
    stride: usize,
}

impl SharedRows {
    pub(super) fn new(start: *mut f32, stride: usize) -> Self {
        Self { start, stride }
    }

    #[inline(always)]
    pub(super) fn row(self, index: u32) -> *mut f32 {
        // SAFETY: indices come from the vocabulary that the matrix was allocated for.
        unsafe { self.start.add(index as usize * self.stride) }
    }

    /// Prefetches a row into the cache.
    #[inline(always)]
    pub(super) fn prefetch(self, index: u32) {
        #[cfg(target_arch = "x86_64")]
        for offset in (0..self.stride).step_by(16) {
            // SAFETY: a prefetch is only a hint, and the row lies within the matrix.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                    self.row(index).add(offset).cast(),
                );
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use super::WIDTH;
    use std::arch::{asm, x86_64::__m256};

    /// Eight relaxed atomic loads from index `at` on, an operand of its own, so that rows share the counter of a loop.
    #[target_feature(enable = "avx")]
    #[inline]
    pub(super) unsafe fn load(p: *const f32, at: usize) -> [f32; WIDTH] {
        let values: __m256;
        // SAFETY: the caller's promise that eight elements can be read; the instruction reads nothing else.
        unsafe {
            asm!(
                "vmovups {values}, ymmword ptr [{p} + 4 * {at}]",
                p = in(reg) p,
                at = in(reg) at,
                values = lateout(ymm_reg) values,
                options(nostack, preserves_flags, readonly)
            );
        }
        // SAFETY: both are eight floats.
        unsafe { std::mem::transmute::<__m256, [f32; WIDTH]>(values) }
    }

    /// Eight relaxed atomic stores.
    #[target_feature(enable = "avx")]
    #[inline]
    pub(super) unsafe fn store(p: *mut f32, at: usize, values: [f32; WIDTH]) {
        // SAFETY: both are eight floats.
        let values = unsafe { std::mem::transmute::<[f32; WIDTH], __m256>(values) };
        // SAFETY: the caller's promise that eight elements can be written; the instruction writes nothing else.
        unsafe {
            asm!(
                "vmovups ymmword ptr [{p} + 4 * {at}], {values}",
                p = in(reg) p,
                at = in(reg) at,
                values = in(ymm_reg) values,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// The atomic view of an element.
///
/// # Safety
/// `p` is valid for reads and writes, aligned, and accessed by this module's functions only while threads share it.
#[inline(always)]
unsafe fn atomic<'a>(p: *const f32) -> &'a AtomicU32 {
    // SAFETY: the caller's promise; f32 and u32 have the same size and alignment.
    unsafe { AtomicU32::from_ptr(p.cast_mut().cast()) }
}

/// Loads [`WIDTH`] elements from index `at` on.
#[inline(always)]
unsafe fn load<const FMA: bool>(p: *const f32, at: usize) -> [f32; WIDTH] {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: the caller's promise; `FMA` is set where the processor has AVX2.
        return unsafe { avx::load(p, at) };
    }
    // SAFETY: the caller's promise that the elements exist.
    from_fn(|i| f32::from_bits(unsafe { atomic(p.add(at + i)) }.load(Ordering::Relaxed)))
}

/// Stores [`WIDTH`] elements from index `at` on.
#[inline(always)]
unsafe fn store<const FMA: bool>(p: *mut f32, at: usize, values: [f32; WIDTH]) {
    #[cfg(target_arch = "x86_64")]
    if FMA {
        // SAFETY: the caller's promise; `FMA` is set where the processor has AVX2.
        unsafe { avx::store(p, at, values) };
        return;
    }
    for (i, value) in values.into_iter().enumerate() {
        // SAFETY: the caller's promise that the elements exist.
        unsafe { atomic(p.add(at + i)) }.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// x·y + z.
#[inline(always)]
fn multiply_add<const FMA: bool>(x: f32, y: f32, z: f32) -> f32 {
    if FMA { x.mul_add(y, z) } else { x * y + z }
}

/// Σᵢ aᵢ·bᵢ over `len` elements, a multiple of [`LANES`].
#[inline(always)]
pub(super) unsafe fn dot<const FMA: bool>(a: *const f32, b: *const f32, len: usize) -> f32 {
    let mut sums = [[0f32; WIDTH]; LANES / WIDTH];
    let mut start = 0;
    while start < len {
        for (part, sum) in sums.iter_mut().enumerate() {
            let offset = start + part * WIDTH;
            // SAFETY: both rows have `len` elements.
            let (x, y) = unsafe { (load::<FMA>(a, offset), load::<FMA>(b, offset)) };
            *sum = from_fn(|lane| multiply_add::<FMA>(x[lane], y[lane], sum[lane]));
        }
        start += LANES;
    }
    let mut sum: [f32; WIDTH] = from_fn(|lane| sums[0][lane] + sums[1][lane]);
    let mut half = WIDTH / 2;
    while half > 0 {
        for lane in 0..half {
            sum[lane] += sum[lane + half];
        }
        half /= 2;
    }
    sum[0]
}

/// y ← y + α·x over `len` elements, a multiple of [`LANES`].
#[inline(always)]
pub(super) unsafe fn axpy<const FMA: bool>(y: *mut f32, alpha: f32, x: *const f32, len: usize) {
    for start in (0..len).step_by(WIDTH) {
        // SAFETY: both rows have `len` elements.
        unsafe {
            let (added, old) = (load::<FMA>(x, start), load::<FMA>(y, start));
            store::<FMA>(y, start, from_fn(|lane| multiply_add::<FMA>(added[lane], alpha, old[lane])));
        }
    }
}

/// g ← g + α·w, then w ← w + α·h, in one pass: the gradient of the hidden layer from the old output row, and the new
/// output row.
#[inline(always)]
pub(super) unsafe fn update_output<const FMA: bool>(g: *mut f32, w: *mut f32, h: *const f32, alpha: f32, len: usize) {
    for start in (0..len).step_by(WIDTH) {
        // SAFETY: the three rows have `len` elements.
        unsafe {
            let (old, hidden) = (load::<FMA>(w, start), load::<FMA>(h, start));
            let gradient = load::<FMA>(g, start);
            store::<FMA>(g, start, from_fn(|lane| multiply_add::<FMA>(old[lane], alpha, gradient[lane])));
            store::<FMA>(w, start, from_fn(|lane| multiply_add::<FMA>(hidden[lane], alpha, old[lane])));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of 32 elements that differ in every element.
    fn rows() -> [Vec<f32>; 3] {
        from_fn(|row| (0..2 * LANES).map(|i| ((i * 7 + row * 3) % 11) as f32 * 0.25 - 1.0).collect())
    }

    fn check<const FMA: bool>() {
        let ([mut g, mut w, h], len) = (rows(), 2 * LANES);
        let [old_g, old_w, _] = rows();
        let close = |a: f32, b: f32| (a - b).abs() < 1e-5;
        // SAFETY: the rows have `len` elements, and one thread uses them.
        unsafe {
            let expected: f32 = w.iter().zip(&h).map(|(a, b)| a * b).sum();
            assert!(close(dot::<FMA>(w.as_ptr(), h.as_ptr(), len), expected));
            update_output::<FMA>(g.as_mut_ptr(), w.as_mut_ptr(), h.as_ptr(), 0.5, len);
            assert!((0..len).all(|i| close(g[i], old_g[i] + 0.5 * old_w[i]) && close(w[i], old_w[i] + 0.5 * h[i])));
            let before = g.clone();
            axpy::<FMA>(g.as_mut_ptr(), -2.0, h.as_ptr(), len);
            assert!((0..len).all(|i| close(g[i], before[i] - 2.0 * h[i])));
            // A row with itself, as when a word is its own neighbor.
            let own = w.as_mut_ptr();
            axpy::<FMA>(own, 1.0, own, len);
        }
        assert!((0..len).all(|i| close(w[i], 2.0 * (old_w[i] + 0.5 * h[i]))));
    }

    #[test]
    fn kernels_compute_their_formulas_with_and_without_avx2() {
        check::<false>();
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            check::<true>();
        }
    }

    #[test]
    fn threads_that_share_a_row_leave_values_that_one_of_them_wrote() {
        let mut row = vec![0f32; LANES];
        let start = row.as_mut_ptr() as usize;
        let ones = vec![1f32; LANES];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let ones = &ones;
                scope.spawn(move || {
                    for _ in 0..1000 {
                        // SAFETY: the row outlives the scope, and all threads access it atomically.
                        unsafe { axpy::<false>(start as *mut f32, 1.0, ones.as_ptr(), LANES) };
                    }
                });
            }
        });
        // Updates may be lost, values may not be anything else than a number of updates.
        assert!(row.iter().all(|v| v.fract() == 0.0 && (1.0..=4000.0).contains(v)), "{row:?}");
    }
}
