//! Sources of the workspace that Miri can run, with the few names that they take from their crates.
#![cfg(test)]
#![allow(dead_code, missing_docs)]

#[path = "../../../crates/mm-repr/src/word2vec/kernels.rs"]
mod kernels;
mod pickle;

/// As in mm-core, without libtorch's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DType {
    F32,
    F64,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

mod word2vec {
    use crate::kernels::{LANES, SharedRows, axpy, dot, update_output};

    #[test]
    fn kernels_stay_in_their_rows() {
        let stride = 2 * LANES;
        let mut matrix: Vec<f32> = (0..3 * stride).map(|n| (n % 7) as f32).collect();
        let expected: f32 = (0..stride).map(|n| matrix[n] * matrix[2 * stride + n]).sum();
        let (mut gradient, hidden) = (vec![0f32; stride], vec![0.5f32; stride]);
        let rows = SharedRows::new(matrix.as_mut_ptr(), stride);
        rows.prefetch(2);
        // SAFETY: rows 0 to 2 have `stride` elements each.
        let found = unsafe {
            let found = dot::<false>(rows.row(0), rows.row(2), stride);
            axpy::<false>(rows.row(1), 2.0, hidden.as_ptr(), stride);
            update_output::<false>(gradient.as_mut_ptr(), rows.row(2), hidden.as_ptr(), 1.0, stride);
            found
        };
        assert!((found - expected).abs() < 1e-3);
        let [first, second, third] = [0, 1, 2].map(|row| matrix[row * stride..(row + 1) * stride].to_vec());
        assert!(first.iter().enumerate().all(|(n, v)| *v == (n % 7) as f32));
        assert!(second.iter().enumerate().all(|(n, v)| *v == ((n + stride) % 7) as f32 + 1.0));
        assert!(third.iter().zip(&gradient).all(|(v, g)| *v == g + 0.5));
    }

    /// Two threads update one row without a lock: values may be lost, but it is no data race.
    #[test]
    fn threads_may_update_the_same_row() {
        let mut row = vec![0f32; LANES];
        let address = row.as_mut_ptr() as usize;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(move || {
                    let ones = vec![1f32; LANES];
                    let row = SharedRows::new(address as *mut f32, LANES).row(0);
                    for _ in 0..5 {
                        // SAFETY: the row has `LANES` elements and outlives the scope.
                        unsafe { axpy::<false>(row, 1.0, ones.as_ptr(), LANES) };
                    }
                });
            }
        });
        assert!(row.iter().all(|value| (1.0..=10.0).contains(value)), "{row:?}");
    }
}
