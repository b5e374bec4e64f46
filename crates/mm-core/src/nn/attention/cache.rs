//! Key/value cache for autoregressive decoding.

use crate::{Error, Result, Tensor, onednn};

/// Keys and values of earlier positions, in memory that is allocated once and filled as positions arrive.
#[derive(Debug, Default)]
pub struct KeyValueCache {
    /// Keys and values, `[rows, kv_heads, capacity, head_dim]` each.
    buffers: Option<(Tensor, Tensor)>,
    length: i64,
    capacity: i64,
}

impl KeyValueCache {
    /// An empty cache that allocates memory for `capacity` positions on first use and grows when they are exceeded.
    pub fn with_capacity(capacity: i64) -> Self {
        Self { buffers: None, length: 0, capacity }
    }

    /// Number of cached positions.
    pub fn length(&self) -> i64 {
        self.length
    }

    /// The cached keys and values, `[rows, kv_heads, length, head_dim]` each.
    pub(super) fn contents(&self) -> Result<Option<(Tensor, Tensor)>> {
        let filled = |t: &Tensor| t.narrow(2, 0, self.length);
        self.buffers.as_ref().map(|(key, value)| Ok((filled(key)?, filled(value)?))).transpose()
    }

    /// Appends positions and returns all keys and values. Where gradients are recorded they are joined by an operation
    /// that has one, instead of being written into the buffers.
    pub(super) fn append(&mut self, key: &Tensor, value: &Tensor) -> Result<(Tensor, Tensor)> {
        let (new, total) = (key.size(2)?, self.length + key.size(2)?);
        if key.requires_grad() || value.requires_grad() || (self.is_recorded() && onednn::grad_enabled()) {
            let joined = match self.contents()? {
                Some((keys, values)) => (Tensor::cat(&[&keys, key], 2)?, Tensor::cat(&[&values, value], 2)?),
                None => (key.clone(), value.clone()),
            };
            (self.buffers, self.length) = (Some((joined.0.clone(), joined.1.clone())), total);
            return Ok(joined);
        }
        let fits = match &self.buffers {
            Some((keys, _)) => keys.size(2)? >= total && !self.is_recorded(),
            None => false,
        };
        if !fits {
            self.grow(key, value, total)?;
        }
        if let Some((keys, values)) = &self.buffers {
            keys.narrow(2, self.length, new)?.copy_(key)?;
            values.narrow(2, self.length, new)?.copy_(value)?;
        }
        self.length = total;
        self.contents()?.ok_or_else(|| Error::Sample("the key/value cache is empty".into()))
    }

    /// Whether the buffers are part of a graph, so that nothing may be written into them.
    fn is_recorded(&self) -> bool {
        self.buffers.as_ref().is_some_and(|(keys, values)| keys.requires_grad() || values.requires_grad())
    }

    /// Moves the contents to buffers with room for `total` positions, twice as many when there was something to move.
    fn grow(&mut self, key: &Tensor, value: &Tensor, total: i64) -> Result<()> {
        let before = self.contents()?;
        self.capacity = self.capacity.max(if before.is_some() { 2 * total } else { total });
        let allocate = |like: &Tensor, old: Option<&Tensor>| -> Result<Tensor> {
            let mut shape = like.shape();
            shape[2] = self.capacity;
            let buffer = Tensor::empty(&shape, like.dtype()?, like.device())?;
            if let Some(old) = old {
                buffer.narrow(2, 0, self.length)?.copy_(old)?;
            }
            Ok(buffer)
        };
        let keys = allocate(key, before.as_ref().map(|b| &b.0))?;
        self.buffers = Some((keys, allocate(value, before.as_ref().map(|b| &b.1))?));
        Ok(())
    }

    /// Replaces the rows by those at the indices `rows` (int64): beams that survive, or one row repeated for several.
    pub fn reorder(&mut self, rows: &Tensor) -> Result<()> {
        let Some((key, value)) = self.contents()? else { return Ok(()) };
        let (key, value) = (key.index_select(0, rows)?, value.index_select(0, rows)?);
        match &self.buffers {
            Some((keys, values)) if keys.size(0)? == key.size(0)? && !self.is_recorded() && !key.requires_grad() => {
                keys.narrow(2, 0, self.length)?.copy_(&key)?;
                values.narrow(2, 0, self.length)?.copy_(&value)?;
            }
            _ => {
                (self.buffers, self.length) = (None, 0);
                self.append(&key, &value)?;
            }
        }
        Ok(())
    }

    /// Joins the rows of several caches. Shorter ones are padded with zeros on the left, so that the next position
    /// follows the last of each; the padding must be masked.
    pub fn batch_left_padded(caches: &[&Self]) -> Result<Self> {
        let longest = caches.iter().map(|c| c.length).max().unwrap_or(0);
        let capacity = longest + caches.iter().map(|c| c.capacity - c.length).max().unwrap_or(0).max(0);
        let all = caches.iter().map(|c| c.contents()).collect::<Result<Option<Vec<_>>>>()?;
        let Some([(key, _), ..]) = all.as_deref() else { return Ok(Self::with_capacity(capacity)) };
        let mut shape = key.shape();
        (shape[0], shape[2]) = (0, capacity);
        for (key, _) in all.iter().flatten() {
            shape[0] += key.size(0)?;
        }
        let allocate = || Tensor::zeros(&shape, key.dtype()?, key.device());
        let (keys, values) = (allocate()?, allocate()?);
        let mut row = 0;
        for (key, value) in all.iter().flatten() {
            let (rows, length) = (key.size(0)?, key.size(2)?);
            for (buffer, part) in [(&keys, key), (&values, value)] {
                buffer.narrow(0, row, rows)?.narrow(2, longest - length, length)?.copy_(part)?;
            }
            row += rows;
        }
        Ok(Self { buffers: Some((keys, values)), length: longest, capacity })
    }

    /// A copy with its own memory.
    pub fn fork(&self) -> Result<Self> {
        let mut copy = Self::with_capacity(self.capacity);
        if let Some((key, value)) = self.contents()? {
            copy.append(&key, &value)?;
        }
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device, no_grad};

    /// Three positions that are appended one by one: the sum of squares of all keys that attention sees has the
    /// gradient that it has without a cache.
    #[test]
    fn gradients_flow_through_cached_positions() {
        let leaf = |value: f64| {
            Tensor::full(&[1, 1, 1, 2], value, DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap()
        };
        let (keys, values) = ([1.0, 2.0, 3.0].map(leaf), [4.0, 5.0, 6.0].map(leaf));
        let mut cache = KeyValueCache::with_capacity(8);
        let mut last = None;
        for (key, value) in keys.iter().zip(&values) {
            last = Some(cache.append(key, value).unwrap());
        }
        let (key, value) = last.unwrap();
        key.pow(2.0).unwrap().sum().unwrap().add(&value.sum().unwrap()).unwrap().backward().unwrap();
        for (index, (key, value)) in keys.iter().zip(&values).enumerate() {
            assert_eq!(key.grad().unwrap().to_vec::<f64>().unwrap(), [2.0 * (index + 1) as f64; 2]);
            assert_eq!(value.grad().unwrap().to_vec::<f64>().unwrap(), [1.0; 2]);
        }
        // Without gradients the cache goes on in memory of its own.
        let (key, _) = no_grad(|| cache.append(&keys[0].detach()?, &values[0].detach()?)).unwrap();
        assert_eq!(key.to_vec::<f64>().unwrap(), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1.0, 1.0]);
        assert!(!key.requires_grad());
        let rows = Tensor::from_slice(&[0i64, 0]).unwrap();
        cache.reorder(&rows).unwrap();
        assert_eq!(cache.contents().unwrap().unwrap().0.shape(), [2, 1, 4, 2]);
    }
}
