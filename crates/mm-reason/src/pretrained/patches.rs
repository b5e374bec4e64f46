//! Images and videos of different sizes as sequences of patches, which batches can pad.

use mm_core::{DType, ProcessContext, Processor, Result, Source, Tensor};
use std::sync::Arc;

/// Splits what another processor returns into patches: `[1 + patches, channels · height · width]`. The first row starts
/// with the number of patches (time, rows, columns).
pub(super) struct PatchSequence {
    /// Returns `[channels, height, width]`, or frames of that shape.
    pub(super) inner: Arc<dyn Processor>,
    /// Height and width of a patch. What remains at the bottom and at the right is cropped.
    pub(super) patch_size: [i64; 2],
}

impl Processor for PatchSequence {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let x = self.inner.process(source, context)?;
        let x = if x.rank() == 3 { x.unsqueeze(0)? } else { x }; // [time, channels, height, width]
        let ([height, width], time, channels) = (self.patch_size, x.size(0)?, x.size(1)?);
        let (rows, columns) = (x.size(2)? / height, x.size(3)? / width);
        let x = x.narrow(2, 0, rows * height)?.narrow(3, 0, columns * width)?;
        let x = x.reshape(&[time, channels, rows, height, columns, width])?.permute(&[0, 2, 4, 1, 3, 5])?;
        let pixels = channels * height * width;
        let x = x.reshape(&[time * rows * columns, pixels])?;
        let grid = Tensor::from_vec(&[time as f32, rows as f32, columns as f32], &[1, 3])?;
        Tensor::cat(&[&grid.to_dtype(x.dtype()?)?.pad(&[0, pixels - 3], 0.0)?, &x], 0)
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn augments_while_decoding(&self) -> bool {
        self.inner.augments_while_decoding()
    }

    fn fingerprint(&self) -> String {
        format!("{} in patches of {:?}", self.inner.fingerprint(), self.patch_size)
    }
}

/// Number of patches (time, rows, columns) of each row of a batch `[batch, 1 + patches, pixels]`.
pub(super) fn grids(batch: &Tensor) -> Result<Vec<[i64; 3]>> {
    let first = batch.narrow(1, 0, 1)?.narrow(2, 0, 3)?.to_dtype(DType::F32)?.to_vec::<f32>()?;
    Ok(first.chunks(3).map(|grid| [grid[0] as i64, grid[1] as i64, grid[2] as i64]).collect())
}

/// The frames `[time, channels, height, width]` of one row `[1 + patches, pixels]`, which may be padded.
pub(super) fn to_frames(row: &Tensor, [time, rows, columns]: [i64; 3], [height, width]: [i64; 2]) -> Result<Tensor> {
    let channels = row.size(1)? / (height * width);
    let x = row.narrow(0, 1, time * rows * columns)?.reshape(&[time, rows, columns, channels, height, width])?;
    x.permute(&[0, 3, 1, 4, 2, 5])?.reshape(&[time, channels, rows * height, columns * width])
}
