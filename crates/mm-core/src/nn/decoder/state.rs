//! The caches of a decoder during generation, for rows with prompts of different lengths.

use crate::{
    DType, Device, Result, Tensor,
    nn::{BlockCache, Mask},
};

/// Caches of a batch: keys and values of all blocks, the context of cross-attention, and the next position.
///
/// Rows with prompts of different lengths are aligned at their ends: the caches of shorter rows start with padding,
/// which a mask hides ([`DecoderState::concat_left_padded`]).
#[derive(Default)]
pub struct DecoderState {
    pub(super) blocks: Vec<BlockCache>,
    /// Context of cross-attention, `[context rows, length, dim]`, and its padding mask.
    pub(super) context: Option<(Tensor, Option<Mask>)>,
    /// Rows of the context. Beams of one input share a row.
    pub(super) context_rows: i64,
    /// Rows of the batch.
    pub(super) rows: i64,
    /// The next position of the row with the longest prompt.
    pub(super) position: i64,
    pub(super) left_padding: Option<LeftPadding>,
}

/// How far rows fall short of the longest one, `[rows]` int64.
#[derive(Debug, Clone)]
pub(super) struct LeftPadding {
    /// Padding entries at the start of the cache.
    pub(super) cache: Tensor,
    /// Difference of the next position.
    pub(super) positions: Tensor,
}

impl DecoderState {
    pub(super) fn new(blocks: Vec<BlockCache>, rows: i64, context: Option<(Tensor, Option<Mask>)>) -> Result<Self> {
        let context_rows = context.as_ref().map_or(Ok(rows), |(values, _)| values.size(0))?;
        Ok(Self { blocks, context, context_rows, rows, position: 0, left_padding: None })
    }

    /// Rows of the batch.
    pub fn rows(&self) -> i64 {
        self.rows
    }

    /// The next position.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Sets the next position, where that is not the number of cached tokens (images in Qwen2-VL).
    pub fn set_position(&mut self, position: i64) {
        self.position = position;
    }

    /// Number of cached positions, padding included.
    pub(super) fn cached(&self) -> i64 {
        self.blocks.first().map_or(0, |block| block.self_attention.length())
    }

    /// Mask `[rows, keys]` of the cached and of `new` positions that are no padding, where rows differ in length.
    pub(super) fn padding_mask(&self, new: i64, device: Device) -> Result<Option<Mask>> {
        let Some(LeftPadding { cache, .. }) = &self.left_padding else { return Ok(None) };
        let keys = Tensor::arange(0, self.cached() + new, device)?.unsqueeze(0)?;
        Ok(Some(Mask::Padding(cache.unsqueeze(1)?.lt(&keys.add_scalar(1.0)?)?)))
    }

    /// A copy with caches of its own.
    pub fn fork(&self) -> Result<Self> {
        let copy = |block: &BlockCache| {
            Ok(BlockCache {
                self_attention: block.self_attention.fork()?,
                cross_attention: block.cross_attention.fork()?,
            })
        };
        Ok(Self {
            blocks: self.blocks.iter().map(copy).collect::<Result<_>>()?,
            context: self.context.clone(),
            context_rows: self.context_rows,
            rows: self.rows,
            position: self.position,
            left_padding: self.left_padding.clone(),
        })
    }

    /// Replaces the rows by these of them, `[new rows]` int64: beams that continue, or rows that are not finished.
    pub fn reorder(&mut self, rows: &Tensor) -> Result<()> {
        for block in &mut self.blocks {
            block.self_attention.reorder(rows)?;
        }
        if self.context.is_some() {
            self.reorder_context(rows)?;
        }
        if let Some(LeftPadding { cache, positions }) = &mut self.left_padding {
            (*cache, *positions) = (cache.index_select(0, rows)?, positions.index_select(0, rows)?);
        }
        self.rows = rows.size(0)?;
        Ok(())
    }

    /// Drops contexts that no row uses any more. Rows that share a context are adjacent.
    fn reorder_context(&mut self, rows: &Tensor) -> Result<()> {
        let rows_per_context = (self.rows / self.context_rows.max(1)).max(1);
        let mut used: Vec<i64> = rows.to_vec::<i64>()?.into_iter().map(|row| row / rows_per_context).collect();
        used.dedup();
        if used.len() as i64 == self.context_rows {
            return Ok(());
        }
        self.context_rows = used.len() as i64;
        let used = Tensor::from_slice(&used)?.to_device(rows.device())?;
        for block in &mut self.blocks {
            block.cross_attention.reorder(&used)?;
        }
        if let Some((values, mask)) = &mut self.context {
            *values = values.index_select(0, &used)?;
            if let Some(Mask::Padding(padding)) = mask {
                *padding = padding.index_select(0, &used)?;
            }
        }
        Ok(())
    }

    /// One state with the rows of several, whose prompts may differ in length. Each must have as many rows as contexts
    /// and must not have generated yet. Their caches are freed block by block, so that they are not in memory twice.
    pub fn concat_left_padded(states: Vec<Self>, device: Device) -> Result<Self> {
        let max = |of: &dyn Fn(&Self) -> i64| states.iter().map(of).max().unwrap_or(0);
        let (cached, position) = (max(&Self::cached), max(&Self::position));
        let per_row = |of: &dyn Fn(&Self) -> i64| -> Result<Tensor> {
            let all: Vec<i64> = states.iter().flat_map(|s| std::iter::repeat_n(of(s), s.rows as usize)).collect();
            Tensor::from_slice(&all)?.to_device(device)
        };
        let ragged = states.iter().any(|s| s.cached() != cached || s.position != position);
        let left_padding = ragged.then(|| {
            let cache = per_row(&|s| cached - s.cached())?;
            Ok::<_, crate::Error>(LeftPadding { cache, positions: per_row(&|s| position - s.position)? })
        });
        Ok(Self {
            context: concat_contexts(&states)?,
            context_rows: states.iter().map(|s| s.context_rows).sum(),
            rows: states.iter().map(|s| s.rows).sum(),
            position,
            left_padding: left_padding.transpose()?,
            blocks: concat_blocks(states)?,
        })
    }
}

/// The caches of several states, block by block.
fn concat_blocks(states: Vec<DecoderState>) -> Result<Vec<BlockCache>> {
    let num_blocks = states.first().map_or(0, |state| state.blocks.len());
    let mut states: Vec<_> = states.into_iter().map(|state| state.blocks.into_iter()).collect();
    (0..num_blocks)
        .map(|_| {
            let caches: Vec<BlockCache> = states.iter_mut().filter_map(Iterator::next).collect();
            BlockCache::batch_left_padded(&caches.iter().collect::<Vec<_>>())
        })
        .collect()
}

/// The contexts of several states, left-padded to the longest.
fn concat_contexts(states: &[DecoderState]) -> Result<Option<(Tensor, Option<Mask>)>> {
    let contexts: Vec<_> = states.iter().filter_map(|s| s.context.as_ref()).collect();
    if contexts.is_empty() {
        return Ok(None);
    }
    let mut longest = 0;
    for (values, _) in &contexts {
        longest = longest.max(values.size(1)?);
    }
    let (mut values, mut masks) = (Vec::new(), Vec::new());
    for (value, mask) in &contexts {
        let (rows, length) = (value.size(0)?, value.size(1)?);
        let missing = longest - length;
        let padding = Tensor::zeros(&[rows, missing, value.size(2)?], value.dtype()?, value.device())?;
        let valid = match mask {
            Some(Mask::Padding(valid)) => valid.clone(),
            _ => Tensor::ones(&[rows, length], DType::Bool, value.device())?,
        };
        let invalid = Tensor::zeros(&[rows, missing], DType::Bool, value.device())?;
        masks.push(Tensor::cat(&[&invalid, &valid], 1)?);
        values.push(Tensor::cat(&[&padding, value], 1)?);
    }
    let unpadded = contexts.iter().all(|(v, m)| m.is_none() && v.size(1).is_ok_and(|n| n == longest));
    let mask = Mask::Padding(Tensor::cat(&masks.iter().collect::<Vec<_>>(), 0)?);
    Ok(Some((Tensor::cat(&values.iter().collect::<Vec<_>>(), 0)?, (!unpadded).then_some(mask))))
}
