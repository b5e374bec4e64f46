//! Many tensors in one contiguous block. Where the launch of an operator costs more than its work, as on a GPU with a
//! small network, one operator over the block replaces one for each tensor.

use crate::Result;
use mm_core::{Device, Tensor};

/// Whether one operator over a block is faster than one for each tensor on this device.
pub(crate) fn is_faster_on(device: Device) -> bool {
    matches!(device, Device::Cuda(_))
}

/// All values of all tensors, `[total number of values]`.
pub(crate) fn concat(tensors: &[&Tensor]) -> Result<Tensor> {
    let flat = tensors.iter().map(|t| t.detach()?.reshape(&[-1])).collect::<mm_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&flat.iter().collect::<Vec<_>>(), 0)?)
}

/// A copy of all tensors in one block, and a view of it for each tensor, in its shape.
pub(crate) fn copy(tensors: &[&Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
    let flat = concat(tensors)?;
    let mut start = 0;
    let mut views = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let shape = tensor.shape();
        let count = shape.iter().product();
        views.push(flat.narrow(0, start, count)?.reshape(&shape)?);
        start += count;
    }
    Ok((flat, views))
}
