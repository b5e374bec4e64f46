//! Attention within windows of a two-dimensional map.

use super::{Attention, AttentionArgs, AttentionConfig, Mask};
use crate::{Device, Error, Init, Result, Scope, Tensor};

/// Scores of pairs that must not attend to each other, as in transformers (not −∞).
const MASKED_SCORE: f32 = -100.0;
/// Largest window; the bias of a window has as many values for each head as the fourth power of its size.
const MAX_WINDOW_SIZE: i64 = 64;

/// Self-attention within square windows of a map, with a learned bias for each relative position. Shifting the windows
/// by half their size in every second layer lets information pass between them.
///
/// *Swin Transformer: Hierarchical Vision Transformer using Shifted Windows* (Liu et al., 2021),
/// <https://arxiv.org/abs/2103.14030>.
pub struct WindowAttention {
    attention: Attention,
    /// `[(2 · window − 1)², heads]`.
    bias_table: Tensor,
    /// Row of the table for each query and key of a window, `[positions, positions]`.
    bias_index: Tensor,
    window_size: i64,
    shift: i64,
}

impl WindowAttention {
    /// Builds the attention and its `relative_position_bias_table` under `scope`; `shifted` moves the windows by half
    /// their size.
    ///
    /// # Errors
    /// If the window size is below 1 or above 64.
    pub fn new(scope: &Scope<'_>, config: &AttentionConfig, window_size: i64, shifted: bool) -> Result<Self> {
        if !(1..=MAX_WINDOW_SIZE).contains(&window_size) {
            return Err(Error::config("window_size", window_size, format!("1 to {MAX_WINDOW_SIZE}")));
        }
        let offsets = 2 * window_size - 1;
        let table = scope.param("relative_position_bias_table", &[offsets * offsets, config.num_heads], Init::Zeros)?;
        Ok(Self {
            attention: Attention::new(scope, config)?,
            bias_index: relative_position_index(window_size, table.device())?,
            bias_table: table,
            window_size,
            shift: if shifted { window_size / 2 } else { 0 },
        })
    }

    /// `[batch, height, width, channels]` → the same. Maps whose sides are not multiples of the window size are padded
    /// with zeros.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [batch, height, width, channels] = [x.size(0)?, x.size(1)?, x.size(2)?, x.size(3)?];
        let size = self.window_size;
        // A map that fits into one window is not shifted.
        let shift = if height.min(width) <= size { 0 } else { self.shift };
        let padding = |side: i64| (size - side % size) % size;
        let (rows, columns) = ((height + padding(height)) / size, (width + padding(width)) / size);
        let mut y = x.pad(&[0, 0, 0, padding(width), 0, padding(height)], 0.0)?;
        if shift > 0 {
            y = y.roll(&[-shift, -shift], &[1, 2])?;
        }
        let windows = y.reshape(&[batch, rows, size, columns, size, channels])?.permute(&[0, 1, 3, 2, 4, 5])?;
        let windows = windows.reshape(&[-1, size * size, channels])?;
        // [1, heads, positions, positions], from the table as it is now: it may be trained.
        let mut bias = self.bias_table.embedding(&self.bias_index)?.permute(&[2, 0, 1])?.contiguous()?.unsqueeze(0)?;
        if shift > 0 {
            let mask = shifted_window_mask([rows * size, columns * size], size, shift)?.to_device(x.device())?;
            bias = bias.add(&mask.to_dtype(bias.dtype()?)?.unsqueeze(1)?)?; // [windows, heads, positions, positions]
            let shape = bias.shape();
            bias = bias.unsqueeze(0)?.expand(&[batch, -1, -1, -1, -1])?.reshape(&[-1, shape[1], shape[2], shape[3]])?;
        }
        let mask = Mask::Bias(bias);
        let args = AttentionArgs { mask: Some(&mask), ..AttentionArgs::default() };
        let y = self.attention.forward(&windows, args)?.values;
        let y = y.reshape(&[batch, rows, columns, size, size, channels])?.permute(&[0, 1, 3, 2, 4, 5])?;
        let mut y = y.reshape(&[batch, rows * size, columns * size, channels])?;
        if shift > 0 {
            y = y.roll(&[shift, shift], &[1, 2])?;
        }
        y.narrow(1, 0, height)?.narrow(2, 0, width)
    }
}

/// Row of the bias table for each query and key of a window, `[positions, positions]`.
fn relative_position_index(window_size: i64, device: Device) -> Result<Tensor> {
    let positions = window_size * window_size;
    let mut index = Vec::with_capacity((positions * positions) as usize);
    for query in 0..positions {
        for key in 0..positions {
            let row = query / window_size - key / window_size + window_size - 1;
            let column = query % window_size - key % window_size + window_size - 1;
            index.push(row * (2 * window_size - 1) + column);
        }
    }
    Tensor::from_vec(&index, &[positions, positions])?.to_device(device)
}

/// Scores that separate positions which shifting brought into one window from opposite ends of the map,
/// `[windows, positions, positions]`.
fn shifted_window_mask([height, width]: [i64; 2], window_size: i64, shift: i64) -> Result<Tensor> {
    let positions = window_size * window_size;
    let (rows, columns) = (height / window_size, width / window_size);
    let region = |at: i64, side: i64| i64::from(at >= side - window_size) + i64::from(at >= side - shift);
    let mut mask = Vec::with_capacity((rows * columns * positions * positions) as usize);
    for window in 0..rows * columns {
        let (top, left) = (window / columns * window_size, window % columns * window_size);
        let region_of = |n: i64| 3 * region(top + n / window_size, height) + region(left + n % window_size, width);
        for query in 0..positions {
            mask.extend((0..positions).map(|key| if region_of(query) == region_of(key) { 0.0 } else { MASKED_SCORE }));
        }
    }
    Tensor::from_vec::<f32>(&mask, &[rows * columns, positions, positions])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Params};

    /// Shifting by half a window makes positions attend across the border of the unshifted windows, but not across the
    /// map's ends.
    #[test]
    fn shifted_windows_exchange_information_between_neighbors_only() {
        let params = Params::new(Device::Cpu);
        let attention = WindowAttention::new(&params.scope(), &AttentionConfig::new(4, 2), 2, true).unwrap();
        let x = Tensor::randn(&[1, 4, 4, 4], DType::F32, Device::Cpu).unwrap();
        let y = attention.forward(&x).unwrap();
        assert_eq!(y.shape(), x.shape());
        let mut values = x.to_vec::<f32>().unwrap();
        values[..4].iter_mut().for_each(|v| *v += 1.0); // position (0, 0), alone in the corner of its region
        let changed = attention.forward(&Tensor::from_vec(&values, &[1, 4, 4, 4]).unwrap()).unwrap();
        let difference = changed.sub(&y).unwrap().abs().unwrap().to_vec::<f32>().unwrap();
        let (own, others) = difference.split_at(4);
        assert!(own.iter().any(|d| *d > 1e-4) && others.iter().all(|d| *d < 1e-5), "{difference:?}");
    }
}
