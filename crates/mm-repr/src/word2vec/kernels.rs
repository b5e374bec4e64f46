//! Vector operations on rows of the shared matrices.
//!
//! `FMA` selects fused multiply-add; it is set in code compiled for processors that have it.

// Compiled into the inner loops for several instruction sets.
#![allow(clippy::inline_always)]

/// Rows are padded to a multiple of this many elements, so that the loops have no remainder.
pub(super) const LANES: usize = 16;

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

/// Σᵢ aᵢ·bᵢ over `len` elements, a multiple of [`LANES`].
#[inline(always)]
pub(super) unsafe fn dot<const FMA: bool>(a: *const f32, b: *const f32, len: usize) -> f32 {
    let mut sums = [0f32; LANES];
    let mut start = 0;
    while start < len {
        for (lane, sum) in sums.iter_mut().enumerate() {
            // SAFETY: both rows have `len` elements.
            let (x, y) = unsafe { (*a.add(start + lane), *b.add(start + lane)) };
            *sum = if FMA { x.mul_add(y, *sum) } else { *sum + x * y };
        }
        start += LANES;
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

/// y ← y + α·x.
#[inline(always)]
pub(super) unsafe fn axpy<const FMA: bool>(y: *mut f32, alpha: f32, x: *const f32, len: usize) {
    for i in 0..len {
        // SAFETY: both rows have `len` elements.
        unsafe {
            let new = if FMA { (*x.add(i)).mul_add(alpha, *y.add(i)) } else { *y.add(i) + alpha * *x.add(i) };
            *y.add(i) = new;
        }
    }
}

/// g ← g + α·w, then w ← w + α·h, in one pass: the gradient of the hidden layer from the old output row, and the new
/// output row.
#[inline(always)]
pub(super) unsafe fn update_output<const FMA: bool>(g: *mut f32, w: *mut f32, h: *const f32, alpha: f32, len: usize) {
    for i in 0..len {
        // SAFETY: the three rows have `len` elements.
        unsafe {
            let (old, x) = (*w.add(i), *h.add(i));
            let (gradient, new) = if FMA {
                (old.mul_add(alpha, *g.add(i)), x.mul_add(alpha, old))
            } else {
                (*g.add(i) + alpha * old, old + alpha * x)
            };
            *g.add(i) = gradient;
            *w.add(i) = new;
        }
    }
}
