//! Pictures and videos of any shapes as sequences of patches, which a batch to learn from can pad.

use mm_core::{DType, ProcessContext, Processor, Result, Source, Tensor};
use std::sync::Arc;

/// A line that begins with how many patches lie (in time, down, across), then the pixels of each: `[1 + patches, channels · high · wide]`.
pub(super) struct InPatches {
    /// Makes `[channels, height, width]`, or frames of that.
    pub(super) whole: Arc<dyn Processor>,
    /// Height and width of a patch; what is left over at the bottom and at the right is cut off.
    pub(super) patch: [i64; 2],
}

impl Processor for InPatches {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let x = self.whole.process(source, context)?;
        let x = if x.rank() == 3 { x.unsqueeze(0)? } else { x }; // [time, channels, height, width]
        let ([high, wide], time, channels) = (self.patch, x.size(0)?, x.size(1)?);
        let (down, across) = (x.size(2)? / high, x.size(3)? / wide);
        let x = x.narrow(2, 0, down * high)?.narrow(3, 0, across * wide)?;
        let x = x.reshape(&[time, channels, down, high, across, wide])?.permute(&[0, 2, 4, 1, 3, 5])?;
        let width = channels * high * wide;
        let x = x.reshape(&[time * down * across, width])?;
        let lie = Tensor::from_vec(&[time as f32, down as f32, across as f32], &[1, 3])?;
        Tensor::cat(&[&lie.to_dtype(x.dtype()?)?.pad(&[0, width - 3], 0.0)?, &x], 0)
    }

    fn is_sequence(&self) -> bool {
        true
    }

    fn fingerprint(&self) -> String {
        format!("{} in patches of {:?}", self.whole.fingerprint(), self.patch)
    }
}

/// How the patches of each row of a batch `[rows, 1 + patches, pixels]` lie: in time, down, across.
pub(super) fn grids(batch: &Tensor) -> Result<Vec<[i64; 3]>> {
    let heads = batch.narrow(1, 0, 1)?.narrow(2, 0, 3)?.to_dtype(DType::F32)?.to_vec::<f32>()?;
    Ok(heads.chunks(3).map(|g| [g[0] as i64, g[1] as i64, g[2] as i64]).collect())
}

/// The frames `[time, channels, height, width]` that one row `[1 + patches, pixels]`, padded or not, was made of.
pub(super) fn frames(row: &Tensor, [time, down, across]: [i64; 3], [high, wide]: [i64; 2]) -> Result<Tensor> {
    let channels = row.size(1)? / (high * wide);
    let x = row.narrow(0, 1, time * down * across)?.reshape(&[time, down, across, channels, high, wide])?;
    x.permute(&[0, 3, 1, 4, 2, 5])?.reshape(&[time, channels, down * high, across * wide])
}
