//! How the samples of a pretrained model become batches.

use crate::{
    Pretrained, Result,
    family::Tower,
    padding::{Lengths, limit_padding},
};
use mm_core::{DType, Device, Input, Tensor, no_grad};
use mm_data::collate;

/// Most rows of a batch.
const MAX_ROWS: usize = 32;

impl Pretrained {
    /// Runs batches as [`Self::run_rows`] does, where the output has the same shape for every sample: `[samples, …]`.
    pub(crate) fn run_batched(
        &self,
        tower: &Tower,
        samples: &[Tensor],
        run: impl Fn(&Input) -> mm_core::Result<Tensor>,
    ) -> Result<Tensor> {
        let rows = self.run_rows(tower, samples, |input| {
            let output = run(input)?.to_dtype(DType::F32)?.to_device(Device::Cpu)?;
            (0..output.size(0)?).map(|row| output.select(0, row)).collect()
        })?;
        Ok(Tensor::stack(&rows.iter().collect::<Vec<_>>(), 0)?)
    }

    /// Runs batches of similar length (sequences) or equal shape (everything else). `run` returns a tensor for each
    /// sample of a batch; all are returned in float32 on the CPU, in the order given.
    pub(crate) fn run_rows(
        &self,
        tower: &Tower,
        samples: &[Tensor],
        run: impl Fn(&Input) -> mm_core::Result<Vec<Tensor>>,
    ) -> Result<Vec<Tensor>> {
        // Limits the elements of a batch, so that long audio and video run alone. Waveforms have a lower limit (16
        // seconds), since the first convolution makes a hundred values of each sample.
        let is_waveform = samples.first().is_some_and(|s| s.rank() == 1 && matches!(s.dtype(), Ok(DType::F32)));
        let max_elements = if is_waveform { 1 << 18 } else { 8 << 20 };
        let mut order: Vec<usize> = (0..samples.len()).collect();
        order.sort_by_key(|i| (samples[*i].shape(), *i));
        let (padded, dim) = (tower.processor.is_sequence(), tower.encoder.dim() as usize);
        let skips_padding = tower.encoder.skips_padding() && self.params.device() == Device::Cpu;
        let length = |index: &usize| samples[*index].shape().first().map_or(1, |length| *length as usize);
        let mut rows: Vec<Option<Tensor>> = vec![None; samples.len()];
        let mut start = 0;
        while start < order.len() {
            let first = samples[order[start]].shape();
            let fits = |(count, i): (usize, &usize)| {
                let sample = &samples[*i];
                (padded || sample.shape() == first) && (count == 0 || (count + 1) * sample.numel() <= max_elements)
            };
            let size = order[start..].iter().take(MAX_ROWS).enumerate().take_while(|(c, i)| fits((*c, i))).count();
            let lengths = order[start..start + size].iter().map(length);
            let size = match (padded, skips_padding) {
                (false, _) => size,
                (true, false) => limit_padding(lengths, Lengths::are_padded),
                (true, true) => limit_padding(lengths, |all| all.are_padded_in_attention(dim)),
            };
            let batch = &order[start..start + size];
            start += size;
            let batch_samples: Vec<Tensor> = batch.iter().map(|i| samples[*i].clone()).collect();
            let mut input: Input =
                collate(&batch_samples, tower.processor.as_ref())?.to_device(self.params.device())?;
            if input.values.dtype()? == DType::F32 {
                input.values = input.values.to_dtype(self.dtype)?;
            }
            for (output, index) in no_grad(|| run(&input))?.into_iter().zip(batch) {
                rows[*index] = Some(output.to_dtype(DType::F32)?.to_device(Device::Cpu)?);
            }
        }
        Ok(rows.into_iter().flatten().collect())
    }
}
