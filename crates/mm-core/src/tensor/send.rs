//! Tensors that move between threads.

use super::Tensor;
use crate::{Error, Result};
use rayon::prelude::*;

#[cfg(feature = "nf4")]
unsafe extern "C" {
    fn mm_is_sole_owner(tensor: *const torch_sys::C_tensor) -> bool;
}

/// A tensor on its way to another thread: the only one that refers to its values, so that no other thread can read or
/// change them meanwhile.
///
/// ```
/// use mm_core::{SendTensor, Tensor};
/// # fn main() -> mm_core::Result<()> {
/// let sent: SendTensor = Tensor::from_slice(&[1f32, 2.0])?.into_send()?;
/// let sum = std::thread::spawn(move || Tensor::from(sent).sum()?.to_f64()).join().unwrap()?;
/// assert_eq!(sum, 3.0);
/// # Ok(())
/// # }
/// ```
///
/// A [`Tensor`] itself stays in its thread:
///
/// ```compile_fail,E0277
/// let tensor = mm_core::Tensor::from_slice(&[1f32]).unwrap();
/// let clone = tensor.clone();
/// std::thread::spawn(move || clone.mul_scalar_(2.0)); // while this thread reads `tensor`
/// ```
///
/// It cannot be shared by reference either:
///
/// ```compile_fail,E0277
/// let tensor = mm_core::Tensor::from_slice(&[1f32]).unwrap();
/// std::thread::scope(|scope| scope.spawn(|| tensor.mul_scalar_(2.0)).join());
/// ```
pub struct SendTensor(tch::Tensor);

impl From<SendTensor> for Tensor {
    fn from(sent: SendTensor) -> Self {
        Self::from_tch(sent.0)
    }
}

impl Tensor {
    /// Prepares the tensor for a move to another thread. The values are copied where another tensor shares them (a
    /// clone, a view of the same memory, a view of a mapped file), and moved otherwise. Without the feature `nf4`,
    /// which compiles the test for that, they are always copied.
    ///
    /// # Errors
    /// If the tensor requires gradients: its graph would stay in this thread.
    pub fn into_send(self) -> Result<SendTensor> {
        if self.requires_grad() {
            let reason = "it requires gradients, which stay in their thread; detach it first".into();
            return Err(Error::Tensor { op: "into_send", found: format!("{self:?}"), reason });
        }
        Ok(SendTensor(self.into_sole_owner()?.0))
    }

    /// The tensor itself where nothing else refers to its values, else a copy.
    pub(crate) fn into_sole_owner(self) -> Result<Self> {
        if self.is_sole_owner() { Ok(self) } else { self.copy() }
    }

    #[cfg(feature = "nf4")]
    fn is_sole_owner(&self) -> bool {
        // SAFETY: reads reference counts of a live tensor.
        unsafe { mm_is_sole_owner(self.0.as_ptr()) }
    }

    /// Unknown without the function that reads the counts.
    #[cfg(not(feature = "nf4"))]
    #[allow(clippy::unused_self)]
    fn is_sole_owner(&self) -> bool {
        false
    }
}

/// Computes one tensor for each item on rayon's threads; the results are in the order of the items.
pub fn parallel_tensors<I: Sync>(
    items: &[I],
    compute: impl Fn(&I) -> Result<Tensor> + Sync + Send,
) -> Vec<Result<Tensor>> {
    let sent: Vec<Result<SendTensor>> = items.par_iter().map(|item| compute(item)?.into_send()).collect();
    sent.into_iter().map(|one| one.map(Tensor::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Device};

    fn address(tensor: &Tensor) -> usize {
        tensor.0.data_ptr() as usize
    }

    #[test]
    fn values_are_moved_when_nothing_else_refers_to_them_and_copied_otherwise() {
        let alone = Tensor::from_slice(&[1f32, 2.0, 3.0]).unwrap();
        let start = address(&alone);
        let alone = Tensor::from(alone.into_send().unwrap());
        assert_eq!(address(&alone) == start, cfg!(feature = "nf4"), "moved");

        // A clone, and a view of part of the memory.
        for kept in [alone.clone(), alone.narrow(0, 1, 2).unwrap()] {
            let sent = Tensor::from(kept.clone().into_send().unwrap());
            sent.mul_scalar_(10.0).unwrap();
            assert_eq!(alone.to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0]);
            assert_ne!(address(&sent), address(&kept));
        }
        // The view alone, once its base is gone.
        let part = alone.narrow(0, 1, 2).unwrap();
        drop(alone);
        let start = address(&part);
        assert_eq!(address(&Tensor::from(part.into_send().unwrap())) == start, cfg!(feature = "nf4"));

        let recorded = Tensor::ones(&[2], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let message = recorded.into_send().map(drop).unwrap_err().to_string();
        assert!(message.contains("[2] f32 on cpu") && message.contains("detach it first"), "{message}");
    }

    #[test]
    fn parallel_results_are_in_order_with_their_errors() {
        let shared = [1i64, 2, 3, 4, 5];
        let compute = |n: &i64| if *n == 3 { Err(Error::Sample("three".into())) } else { Tensor::from_slice(&[*n; 2]) };
        let found = parallel_tensors(&shared, compute);
        let values: Vec<Option<Vec<i64>>> =
            found.iter().map(|t| t.as_ref().ok().map(|t| t.to_vec().unwrap())).collect();
        assert_eq!(values, [Some(vec![1, 1]), Some(vec![2, 2]), None, Some(vec![4, 4]), Some(vec![5, 5])]);
    }
}
