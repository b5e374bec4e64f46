//! Shapes, types and values.

use super::{Element, Tensor, torch_error};
use crate::{DType, Device, Error, Result};
use std::marker::PhantomData;
use tch::TchError;

impl Tensor {
    /// The size of each dimension.
    pub fn shape(&self) -> Vec<i64> {
        self.0.size()
    }

    /// The size of one dimension; negative indices count from the last.
    ///
    /// # Errors
    /// If there is no such dimension.
    pub fn size(&self, dim: i64) -> Result<i64> {
        let shape = self.shape();
        let index = if dim < 0 { dim + shape.len() as i64 } else { dim };
        usize::try_from(index).ok().and_then(|p| shape.get(p).copied()).ok_or_else(|| Error::Shape {
            what: format!("size({dim})"),
            expected: format!("at least {} dimensions", if dim < 0 { -dim } else { dim + 1 }),
            found: shape,
        })
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.dim()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.0.numel()
    }

    /// Element type.
    pub fn dtype(&self) -> Result<DType> {
        self.0
            .f_kind()
            .ok()
            .and_then(DType::from_tch)
            .ok_or_else(|| Error::Sample("the tensor has an unsupported element type".into()))
    }

    /// The device that holds the tensor.
    pub fn device(&self) -> Device {
        Device::from_tch(self.0.device())
    }

    /// The values in row-major order, converted to `T`.
    pub fn to_vec<T: Element>(&self) -> Result<Vec<T>> {
        let run = || -> Result<Vec<T>, TchError> {
            let flat = self.0.f_detach()?.f_to_device(tch::Device::Cpu)?.f_to_kind(T::KIND)?.f_contiguous()?;
            let mut values = vec![T::default(); flat.numel()];
            flat.f_copy_data(&mut values, flat.numel())?;
            Ok(values)
        };
        run().map_err(|error| torch_error("to_vec", &[self], &error))
    }

    /// The value of a tensor with one element.
    ///
    /// # Errors
    /// If there is more than one element.
    pub fn to_f64(&self) -> Result<f64> {
        if self.numel() != 1 {
            return Err(Error::shape("to_f64", &self.shape(), "one element"));
        }
        Ok(self.to_vec::<f64>()?[0])
    }

    /// The raw bytes in row-major order (little-endian).
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let size = self.dtype()?.size();
        let run = || -> Result<Vec<u8>, TchError> {
            let flat = self.0.f_detach()?.f_to_device(tch::Device::Cpu)?.f_contiguous()?;
            let mut bytes = vec![0u8; flat.numel() * size];
            flat.f_copy_data_u8(&mut bytes, flat.numel())?;
            Ok(bytes)
        };
        run().map_err(|error| torch_error("to_bytes", &[self], &error))
    }

    /// A tensor of the tch crate, for operations that are not wrapped here. tch lets its tensors change threads; one
    /// that shares its values with a tensor here must not.
    pub fn from_tch(tensor: tch::Tensor) -> Self {
        Self(tensor, PhantomData)
    }

    /// The tensor of the tch crate; its clones must stay in this thread.
    pub fn as_tch(&self) -> &tch::Tensor {
        &self.0
    }
}
