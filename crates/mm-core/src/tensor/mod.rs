//! mm's tensor: a selection of libtorch's operations under PyTorch's names. Each is fallible, so that a wrong shape,
//! dtype or device is an [`Error`] that names the operation and its operands, and never a panic.

mod access;
mod autograd;
mod create;
mod math;
mod ndarray;
mod nn;
mod operators;
mod ops;
mod send;

pub use ndarray::NdArray;
pub use nn::{BatchNormArgs, ConvArgs, DotProductArgs, Interpolation};
pub use send::{SendTensor, parallel_tensors};

use crate::{Error, Result};
use std::{fmt, marker::PhantomData};
use tch::TchError;

/// An n-dimensional array on a [`Device`](crate::Device), with automatic differentiation.
///
/// Clones and views share the values, and operations whose names end in `_` change them in place for all of these, as
/// in PyTorch. A tensor, and a model of tensors, therefore stays in the thread that made it; [`Tensor::into_send`]
/// moves one to another thread.
///
/// ```
/// use mm_core::Tensor;
/// # fn main() -> mm_core::Result<()> {
/// let x = Tensor::from_slice(&[1f32, 2.0, 3.0])?.set_requires_grad(true)?;
/// (&x * &x)?.sum()?.backward()?;
/// assert_eq!(x.grad().unwrap().to_vec::<f32>()?, [2.0, 4.0, 6.0]);
/// # Ok(())
/// # }
/// ```
pub struct Tensor(pub(crate) tch::Tensor, PhantomData<*mut ()>);

impl Clone for Tensor {
    fn clone(&self) -> Self {
        Self::from_tch(self.0.shallow_clone())
    }
}

/// A Rust number type that tensors can hold.
pub trait Element: tch::kind::Element + Copy + Default {}
impl Element for f32 {}
impl Element for f64 {}
impl Element for i64 {}
impl Element for i32 {}
impl Element for u8 {}
impl Element for bool {}

/// Runs `body` without recording gradients.
pub fn no_grad<T>(body: impl FnOnce() -> T) -> T {
    let _guard = tch::no_grad_guard();
    body()
}

/// Runs `body` with gradients recorded, even inside [`no_grad`].
pub fn enable_grad<T>(body: impl FnOnce() -> T) -> T {
    tch::with_grad(body)
}

/// The error of an operation, with its operands and libtorch's own first line.
#[cold]
pub(crate) fn torch_error(op: &'static str, inputs: &[&Tensor], error: &TchError) -> Error {
    let found = match inputs {
        [] => "no tensor".to_owned(),
        some => some.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" and "),
    };
    let text = match error {
        TchError::Torch(text) => text.clone(),
        other => other.to_string(),
    };
    // libtorch appends its C++ stack trace.
    let text = text.split("\nException raised from").next().unwrap_or("").trim();
    Error::Tensor { op, found, reason: text.to_owned() }
}

#[inline]
pub(crate) fn wrap(op: &'static str, inputs: &[&Tensor], result: Result<tch::Tensor, TchError>) -> Result<Tensor> {
    match result {
        Ok(tensor) => Ok(Tensor::from_tch(tensor)),
        Err(error) => Err(torch_error(op, inputs, &error)),
    }
}

impl fmt::Debug for Tensor {
    /// Shape, type and device, as in errors (`[2, 3] f32 on cpu`); `to_vec` gives the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = self.dtype().map_or_else(|_| "unknown".to_owned(), |d| format!("{d:?}").to_lowercase());
        write!(f, "{:?} {dtype} on {}", self.shape(), self.device())
    }
}

#[cfg(test)]
mod tests;
