//! Gathering the rows of all ranks, with their gradients.

use crate::{Error, Group, Result};
use mm_core::{DType, Device, Tensor, no_grad};
use serde::{Deserialize, Serialize};

/// The rows of all ranks.
#[derive(Debug, Clone)]
pub struct GatheredRows {
    /// `[rows of all ranks, …]`, those of rank 0 first.
    pub values: Tensor,
    /// The number of rows of each rank.
    pub counts: Vec<usize>,
}

/// What a rank says about its rows before it sends them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    rows: usize,
    dtype: DType,
    shape: Vec<i64>,
    /// Whether they are on a GPU that NCCL sends from.
    gpu: bool,
}

impl Group {
    /// The rows of all ranks, `[rows, …]`; their numbers may differ between ranks, and be 0.
    ///
    /// The gradient of a rank's own rows flows back, multiplied by the number of ranks. Where every rank computes **the
    /// same loss of the gathered rows**, averaging the gradients over the ranks
    /// ([`GradientReducer`](crate::GradientReducer)) then gives the gradient that one process has of the whole batch,
    /// of the parameters before and after the gathering alike. In the words of open_clip this is `--gather-with-grad`;
    /// no gradients are sent for it.
    ///
    /// ```
    /// use mm_core::{Device, Tensor};
    ///
    /// let found = mm_dist::spawn_local(2, |group| {
    ///     // Rank 0 has one row, rank 1 has two.
    ///     let own = Tensor::ones(&[1 + group.rank() as i64, 2], mm_core::DType::F32, Device::Cpu)?;
    ///     Ok(group.gather_rows(&own)?.values.shape())
    /// })?;
    /// assert_eq!(found, [[3, 2], [3, 2]]);
    /// # Ok::<(), mm_dist::Error>(())
    /// ```
    ///
    /// # Errors
    /// When the rows have other dimensions or another dtype in another rank, a process ended or does not come.
    pub fn gather_rows(&self, rows: &Tensor) -> Result<GatheredRows> {
        let shape = rows.shape().into_iter().skip(1).collect();
        let gpu = self.transport(rows) != Device::Cpu;
        let headers = self.gather(&Header { rows: rows.size(0)? as usize, dtype: rows.dtype()?, shape, gpu })?;
        // A rank without rows may not know what they would look like.
        let expected = headers.iter().find(|h| h.rows > 0).unwrap_or(&headers[0]);
        let differs = |h: &Header| h.rows > 0 && (h.dtype, &h.shape) != (expected.dtype, &expected.shape);
        if let Some(rank) = headers.iter().position(differs) {
            let shown = |h: &Header| format!("{:?} {:?}", h.shape, h.dtype);
            let (found, expected) = (shown(&headers[rank]), shown(expected));
            return Err(Error::Shape { operation: "gather_rows", rank, found, expected });
        }
        let counts: Vec<usize> = headers.iter().map(|h| h.rows).collect();
        let longest = counts.iter().copied().max().unwrap_or(0) as i64;
        if longest == 0 {
            return Ok(GatheredRows { values: rows.clone(), counts });
        }
        // A rank without rows may have them elsewhere.
        let on_gpus = headers.iter().all(|h| h.gpu || h.rows == 0);
        let device = self.gpu.filter(|_| on_gpus).unwrap_or(Device::Cpu);
        let own_count = counts[self.rank()] as i64;
        let padded = no_grad(|| {
            let missing = zero_rows(longest - own_count, &expected.shape, expected.dtype, rows.device())?;
            if own_count == 0 { Ok(missing) } else { Tensor::cat(&[&rows.detach()?, &missing], 0) }
        })?;
        let mut all = self.all_gather(&padded.to_device(device)?)?;
        for (part, count) in all.iter_mut().zip(&counts) {
            *part = part.narrow(0, 0, *count as i64)?.to_device(rows.device())?;
        }
        if own_count > 0 {
            all[self.rank()] = rows.scale_gradient(self.world_size() as f64)?;
        }
        let values = Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?;
        Ok(GatheredRows { values, counts })
    }
}

/// Rows of zeros, `[count, …]`.
fn zero_rows(count: i64, rest: &[i64], dtype: DType, device: Device) -> mm_core::Result<Tensor> {
    let shape: Vec<i64> = std::iter::once(count).chain(rest.iter().copied()).collect();
    Tensor::zeros(&shape, dtype, device)
}
