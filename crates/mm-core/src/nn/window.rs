//! Windowed attention over maps of patches: partition into windows, shifted windows and their masks.
//!
//! *Swin Transformer: Hierarchical Vision Transformer using Shifted Windows* (Liu et al., 2021), <https://arxiv.org/abs/2103.14030>.

use crate::{Device, Error, Result, Tensor};

/// `[batch, height, width, channels]` → `[batch · windows, size², channels]`, windows in rows from the top left.
///
/// # Errors
/// If height or width is not a multiple of `size`.
pub fn window_partition(x: &Tensor, size: i64) -> Result<Tensor> {
    let shape = x.shape();
    let &[batch, height, width, channels] = shape.as_slice() else {
        return Err(Error::shape("window partition", &shape, "[batch, height, width, channels]"));
    };
    let (rows, columns) = (height / size.max(1), width / size.max(1));
    let windows = x.reshape(&[batch, rows, size, columns, size, channels])?.permute(&[0, 1, 3, 2, 4, 5])?;
    windows.reshape(&[-1, size * size, channels])
}

/// The inverse of [`window_partition`] for a map of `height` by `width`.
///
/// # Errors
/// If the windows do not make up such maps.
pub fn window_reverse(windows: &Tensor, size: i64, height: i64, width: i64) -> Result<Tensor> {
    let channels = windows.size(-1)?;
    let (rows, columns) = (height / size.max(1), width / size.max(1));
    let x = windows.reshape(&[-1, rows, columns, size, size, channels])?.permute(&[0, 1, 3, 2, 4, 5])?;
    x.reshape(&[-1, height, width, channels])
}

/// Values added to the attention scores of a map rolled by `shift`, `[windows, size², size²]`: 0 between positions of one region, −100 (as
/// in transformers) between positions that the roll brought into one window from opposite edges.
pub fn shifted_window_mask(height: i64, width: i64, size: i64, shift: i64) -> Result<Tensor> {
    let region = |at: i64, length: i64| i64::from(at >= length - size) + i64::from(at >= length - shift);
    let columns = width / size;
    let mut out = Vec::with_capacity((height * width * size * size) as usize);
    for window in 0..(height / size) * columns {
        let (top, left) = (window / columns * size, window % columns * size);
        let region_of = |n: i64| 3 * region(top + n / size, height) + region(left + n % size, width);
        for query in 0..size * size {
            out.extend((0..size * size).map(|key| if region_of(query) == region_of(key) { 0f32 } else { -100.0 }));
        }
    }
    Tensor::from_vec(&out, &[height * width / (size * size), size * size, size * size])
}

/// Row of the relative position bias table, `(2 · size − 1)²` rows, for each (query, key) pair of a window: `[size², size²]` int64.
pub fn relative_position_index(size: i64, device: Device) -> Result<Tensor> {
    let (side, positions) = (2 * size - 1, size * size);
    let mut index = Vec::with_capacity((positions * positions) as usize);
    for query in 0..positions {
        for key in 0..positions {
            let (rows, columns) = (query / size - key / size, query % size - key % size);
            index.push((rows + size - 1) * side + columns + size - 1);
        }
    }
    Tensor::from_vec(&index, &[positions, positions])?.to_device(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reversing_a_partition_gives_the_map_back() {
        let x = Tensor::arange(0, 2 * 4 * 6 * 3, Device::Cpu).unwrap().reshape(&[2, 4, 6, 3]).unwrap();
        let windows = window_partition(&x, 2).unwrap();
        assert_eq!(windows.shape(), [2 * 6, 4, 3]);
        // The second window holds columns 2 and 3 of rows 0 and 1.
        let second = windows.select(0, 1).unwrap().select(1, 0).unwrap().to_vec::<i64>().unwrap();
        assert_eq!(second, [6, 9, 24, 27]);
        let back = window_reverse(&windows, 2, 4, 6).unwrap();
        assert_eq!(back.to_vec::<i64>().unwrap(), x.to_vec::<i64>().unwrap());
    }

    #[test]
    fn shifted_windows_separate_opposite_edges() {
        let mask = shifted_window_mask(4, 4, 2, 1).unwrap();
        assert_eq!(mask.shape(), [4, 4, 4]);
        // The first window lies inside the map; each position of the last comes from another corner.
        assert_eq!(mask.select(0, 0).unwrap().to_vec::<f32>().unwrap(), [0.0; 16]);
        let last = mask.select(0, 3).unwrap().to_vec::<f32>().unwrap();
        assert!((0..16).all(|n| last[n] == if n % 5 == 0 { 0.0 } else { -100.0 }));
    }

    #[test]
    fn relative_positions_are_symmetric_around_the_center() {
        let index = relative_position_index(2, Device::Cpu).unwrap().to_vec::<i64>().unwrap();
        assert_eq!(index[..4], [4, 3, 1, 0]);
        assert!((0..16).all(|n| index[n] + index[n % 4 * 4 + n / 4] == 8));
    }
}
