//! Tensors of many shapes side by side in one piece of memory. Where starting an operator costs more than its work, as on a GPU for a small
//! network, one operator for all of them is what counts.

use crate::Result;
use mm_core::{Device, Tensor};

/// Whether tensors of this device are worth laying side by side.
pub(crate) fn worth(device: Device) -> bool {
    matches!(device, Device::Cuda(_))
}

/// All numbers of all tensors, `[numbers]`.
pub(crate) fn join(tensors: &[&Tensor]) -> Result<Tensor> {
    let flat = tensors.iter().map(|t| t.detach()?.reshape(&[-1])).collect::<mm_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&flat.iter().collect::<Vec<_>>(), 0)?)
}

/// The same in memory of its own, and each tensor as it lies in it, in its shape.
pub(crate) fn copy(tensors: &[&Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
    let all = join(tensors)?;
    let mut from = 0;
    let mut each = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let shape = tensor.shape();
        let count = shape.iter().product();
        each.push(all.narrow(0, from, count)?.reshape(&shape)?);
        from += count;
    }
    Ok((all, each))
}
