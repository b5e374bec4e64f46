//! Nested Rust arrays as tensors.

use super::{Element, Tensor};
use crate::{Device, Error, Result};

/// Numbers, and arrays, slices and vectors of them, nested as often as the tensor has dimensions.
pub trait NdArray {
    /// The number type.
    type Element: Element;

    /// The size of each dimension.
    ///
    /// # Errors
    /// If rows of one dimension have different lengths.
    fn shape(&self) -> Result<Vec<i64>>;

    /// Appends the values in row-major order.
    fn append_to(&self, values: &mut Vec<Self::Element>);
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl NdArray for $number {
            type Element = Self;

            fn shape(&self) -> Result<Vec<i64>> {
                Ok(Vec::new())
            }

            fn append_to(&self, values: &mut Vec<Self>) {
                values.push(*self);
            }
        }
    )*};
}
numbers! { f32 f64 i64 i32 u8 bool }

impl<A: NdArray> NdArray for [A] {
    type Element = A::Element;

    fn shape(&self) -> Result<Vec<i64>> {
        let mut inner = None;
        for (index, row) in self.iter().enumerate() {
            let shape = row.shape()?;
            if let Some(first) = inner.as_ref().filter(|first| **first != shape) {
                return Err(Error::shape(format!("row {index} of nested arrays"), &shape, format!("{first:?}")));
            }
            inner = Some(shape);
        }
        Ok(std::iter::once(self.len() as i64).chain(inner.unwrap_or_default()).collect())
    }

    fn append_to(&self, values: &mut Vec<A::Element>) {
        self.iter().for_each(|row| row.append_to(values));
    }
}

macro_rules! like_slices {
    ($([$($generics:tt)*] $kind:ty;)*) => {$(
        impl<$($generics)*> NdArray for $kind {
            type Element = A::Element;

            fn shape(&self) -> Result<Vec<i64>> {
                self.as_slice().shape()
            }

            fn append_to(&self, values: &mut Vec<A::Element>) {
                self.as_slice().append_to(values);
            }
        }
    )*};
}
like_slices! {
    [A: NdArray, const N: usize] [A; N];
    [A: NdArray] Vec<A>;
}

impl<A: NdArray + ?Sized> NdArray for &A {
    type Element = A::Element;

    fn shape(&self) -> Result<Vec<i64>> {
        (**self).shape()
    }

    fn append_to(&self, values: &mut Vec<A::Element>) {
        (**self).append_to(values);
    }
}

impl Tensor {
    /// A tensor on `device` from a number, or from nested arrays, slices or vectors.
    ///
    /// ```
    /// use mm_core::{Device, Tensor};
    /// # fn main() -> mm_core::Result<()> {
    /// let matrix = Tensor::new([[1f32, 2.0, 3.0], [4.0, 5.0, 6.0]], Device::Cpu)?;
    /// assert_eq!(matrix.shape(), [2, 3]);
    /// let rows: Vec<Vec<i64>> = vec![vec![1, 2], vec![3, 4]];
    /// assert_eq!(Tensor::new(&rows, Device::Cpu)?.shape(), [2, 2]);
    /// assert_eq!(Tensor::new(0.5, Device::Cpu)?.to_f64()?, 0.5);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If rows of one dimension have different lengths.
    pub fn new(values: impl NdArray, device: Device) -> Result<Self> {
        let shape = values.shape()?;
        let mut flat = Vec::with_capacity(shape.iter().product::<i64>() as usize);
        values.append_to(&mut flat);
        Self::from_vec(&flat, &shape)?.to_device(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_values_keep_their_order_and_rows_of_other_lengths_are_errors() {
        let cube = Tensor::new(vec![[[1i64, 2], [3, 4]], [[5, 6], [7, 8]]], Device::Cpu).unwrap();
        assert_eq!((cube.shape(), cube.to_vec::<i64>().unwrap()), (vec![2, 2, 2], vec![1, 2, 3, 4, 5, 6, 7, 8]));
        let slice: &[f32] = &[1.0, 2.0];
        assert_eq!(Tensor::new(slice, Device::Cpu).unwrap().shape(), [2]);
        assert_eq!(Tensor::new(true, Device::Cpu).unwrap().rank(), 0);
        assert_eq!(Tensor::new(Vec::<f32>::new(), Device::Cpu).unwrap().shape(), [0]);
        let error = Tensor::new(vec![vec![1f32, 2.0], vec![3.0]], Device::Cpu).unwrap_err().to_string();
        assert_eq!(error, "row 1 of nested arrays: found shape [1], expected [2]");
    }
}
