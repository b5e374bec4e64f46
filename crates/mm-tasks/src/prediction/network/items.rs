//! The rows of a batch, grouped by item.

use mm_core::{Device, Result, Tensor};

/// Where each row of a batch is in a padded `[items, length]` layout.
pub(in super::super) struct ItemLayout {
    /// `[items * length]` int64: the row at each position; the number of rows where there is none.
    rows: Tensor,
    /// `[items, length]` bool: where there are rows.
    pub(super) mask: Tensor,
    /// `[rows]` int64: the position of each row in `items * length`.
    positions: Tensor,
    /// Number of items.
    pub(super) num_items: i64,
    /// Rows of the longest item.
    pub(super) length: i64,
}

impl ItemLayout {
    /// The layout of rows of these items; rows of one item are consecutive.
    pub(super) fn new(items: &[String], device: Device) -> Result<Self> {
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for row in 0..items.len() {
            match spans.last_mut() {
                Some((first, count)) if items[*first] == items[row] => *count += 1,
                _ => spans.push((row, 1)),
            }
        }
        let length = spans.iter().map(|s| s.1).max().unwrap_or(1);
        let mut rows = vec![items.len() as i64; spans.len() * length];
        let mut positions = vec![0i64; items.len()];
        for (item, (first, count)) in spans.iter().enumerate() {
            for step in 0..*count {
                rows[item * length + step] = (first + step) as i64;
                positions[first + step] = (item * length + step) as i64;
            }
        }
        let mask: Vec<bool> = rows.iter().map(|r| *r < items.len() as i64).collect();
        let (num_items, length) = (spans.len() as i64, length as i64);
        Ok(Self {
            rows: Tensor::from_slice(&rows)?.to_device(device)?,
            mask: Tensor::from_vec(&mask, &[num_items, length])?.to_device(device)?,
            positions: Tensor::from_slice(&positions)?.to_device(device)?,
            num_items,
            length,
        })
    }

    /// `[rows, dim]` → `[items, length, dim]`, zeros where there is no row.
    pub(super) fn gather(&self, x: &Tensor) -> Result<Tensor> {
        let padded = x.pad(&[0, 0, 0, 1], 0.0)?;
        padded.index_select(0, &self.rows)?.reshape(&[self.num_items, self.length, x.size(1)?])
    }

    /// `[items, length, dim]` → `[rows, dim]`.
    pub(super) fn scatter(&self, x: &Tensor) -> Result<Tensor> {
        x.flatten(0, 1)?.index_select(0, &self.positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_gathered_by_item_and_scattered_back() {
        let items = ["a", "a", "b", "c", "c"].map(ToOwned::to_owned);
        let layout = ItemLayout::new(&items, Device::Cpu).unwrap();
        assert_eq!((layout.num_items, layout.length), (3, 2));
        let x = Tensor::from_vec(&[1f32, 2.0, 3.0, 4.0, 5.0], &[5, 1]).unwrap();
        let gathered = layout.gather(&x).unwrap();
        assert_eq!(gathered.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 0.0, 4.0, 5.0]);
        assert_eq!(layout.scatter(&gathered).unwrap().to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}
