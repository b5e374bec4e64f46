//! Building tensors.

use super::{Element, Tensor, wrap};
use crate::{DType, Device, Error, Result};
use tch::TchError;

impl Tensor {
    /// A tensor from Rust values, of one dimension, on the CPU.
    pub fn from_slice<T: Element>(values: &[T]) -> Result<Self> {
        // SAFETY: the element types are plain numbers, whose bytes may be read.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        wrap("from_slice", &[], filled(bytes, &[values.len() as i64], T::KIND))
    }

    /// A tensor from Rust values in a shape, on the CPU.
    ///
    /// # Errors
    /// If the shape has another number of values.
    pub fn from_vec<T: Element>(values: &[T], shape: &[i64]) -> Result<Self> {
        let count: i64 = shape.iter().product();
        if usize::try_from(count).ok() != Some(values.len()) {
            return Err(Error::shape("from_vec", shape, format!("a shape of {} values", values.len())));
        }
        Self::from_slice(values)?.reshape(shape)
    }

    /// A tensor from raw bytes (little-endian) in a shape, on the CPU.
    ///
    /// # Errors
    /// If the shape needs another number of bytes.
    pub fn from_bytes(bytes: &[u8], shape: &[i64], dtype: DType) -> Result<Self> {
        let count: i64 = shape.iter().product();
        if usize::try_from(count).ok().map(|n| n * dtype.size()) != Some(bytes.len()) {
            return Err(Error::shape("from_bytes", shape, format!("a shape of {} bytes of {dtype:?}", bytes.len())));
        }
        wrap("from_bytes", &[], filled(bytes, shape, dtype.tch()))
    }

    /// A tensor over memory that is owned elsewhere.
    ///
    /// # Safety
    /// The memory must hold that many values, be aligned for them and writable, and stay valid as long as the program
    /// runs.
    pub(crate) unsafe fn from_memory(memory: *const u8, shape: &[i64], dtype: DType) -> Result<Self> {
        let mut strides = vec![1i64; shape.len()];
        for i in (1..shape.len()).rev() {
            strides[i - 1] = strides[i] * shape[i].max(1);
        }
        // SAFETY: guaranteed by the caller.
        let tensor = unsafe { tch::Tensor::f_from_blob(memory, shape, &strides, dtype.tch(), tch::Device::Cpu) };
        wrap("from_memory", &[], tensor)
    }

    /// A tensor of zeros.
    pub fn zeros(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        wrap("zeros", &[], tch::Tensor::f_zeros(shape, (dtype.tch(), device.tch())))
    }

    /// A tensor of uninitialized values.
    pub fn empty(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        wrap("empty", &[], tch::Tensor::f_empty(shape, (dtype.tch(), device.tch())))
    }

    /// A tensor of ones.
    pub fn ones(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        wrap("ones", &[], tch::Tensor::f_ones(shape, (dtype.tch(), device.tch())))
    }

    /// A tensor with the same value everywhere.
    pub fn full(shape: &[i64], value: f64, dtype: DType, device: Device) -> Result<Self> {
        wrap("full", &[], tch::Tensor::f_full(shape, value, (dtype.tch(), device.tch())))
    }

    /// A random permutation of the integers below `count`, from libtorch's seeded generator.
    pub fn randperm(count: i64, device: Device) -> Result<Self> {
        wrap("randperm", &[], tch::Tensor::f_randperm(count, (tch::Kind::Int64, device.tch())))
    }

    /// Standard normal values from libtorch's seeded generator.
    pub fn randn(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        wrap("randn", &[], tch::Tensor::f_randn(shape, (dtype.tch(), device.tch())))
    }

    /// Uniform values in [0, 1) from libtorch's seeded generator.
    pub fn rand(shape: &[i64], dtype: DType, device: Device) -> Result<Self> {
        wrap("rand", &[], tch::Tensor::f_rand(shape, (dtype.tch(), device.tch())))
    }

    /// The integers from `start` (inclusive) to `end` (exclusive).
    pub fn arange(start: i64, end: i64, device: Device) -> Result<Self> {
        wrap("arange", &[], tch::Tensor::f_arange_start(start, end, (tch::Kind::Int64, device.tch())))
    }

    /// The identity matrix.
    pub fn eye(size: i64, dtype: DType, device: Device) -> Result<Self> {
        wrap("eye", &[], tch::Tensor::f_eye(size, (dtype.tch(), device.tch())))
    }

    /// Concatenates tensors along an existing dimension.
    pub fn cat(tensors: &[&Tensor], dim: i64) -> Result<Self> {
        let raw: Vec<&tch::Tensor> = tensors.iter().map(|t| &t.0).collect();
        wrap("cat", tensors, tch::Tensor::f_cat(&raw, dim))
    }

    /// Stacks tensors of one shape along a new dimension.
    pub fn stack(tensors: &[&Tensor], dim: i64) -> Result<Self> {
        let raw: Vec<&tch::Tensor> = tensors.iter().map(|t| &t.0).collect();
        wrap("stack", tensors, tch::Tensor::f_stack(&raw, dim))
    }

    /// [`Tensor::stack`] along a new first dimension in the calling thread only. Where many threads stack at once, as
    /// those of a data loader do, libtorch would start a thread pool for each, and the pools would compete for the
    /// cores.
    pub fn stack_single_threaded(tensors: &[&Tensor]) -> Result<Self> {
        let Some(first) = tensors.first() else { return Self::stack(tensors, 0) };
        let (shape, kind) = (first.shape(), first.0.kind());
        let plain =
            |t: &&Tensor| t.device() == Device::Cpu && t.0.is_contiguous() && t.0.kind() == kind && t.shape() == shape;
        if !tensors.iter().all(plain) {
            return Self::stack(tensors, 0);
        }
        let sizes: Vec<i64> = std::iter::once(tensors.len() as i64).chain(shape).collect();
        let out = wrap("stack", tensors, tch::Tensor::f_empty(&sizes, (kind, tch::Device::Cpu)))?;
        let bytes = first.0.numel() * kind.elt_size_in_bytes();
        for (index, tensor) in tensors.iter().enumerate() {
            // SAFETY: both are contiguous in the CPU's memory, and the new tensor has room for this many parts of
            // `bytes` bytes.
            unsafe {
                let to = out.0.data_ptr().cast::<u8>().add(index * bytes);
                std::ptr::copy_nonoverlapping(tensor.0.data_ptr().cast::<u8>(), to, bytes);
            }
        }
        Ok(out)
    }
}

/// A new tensor on the CPU with these bytes, as many as the shape needs. (tch's own function zeroes the memory first.)
fn filled(bytes: &[u8], shape: &[i64], kind: tch::Kind) -> Result<tch::Tensor, TchError> {
    let tensor = tch::Tensor::f_empty(shape, (kind, tch::Device::Cpu))?;
    // SAFETY: a new contiguous tensor of this many bytes, which nothing else refers to.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), tensor.data_ptr().cast::<u8>(), bytes.len()) };
    Ok(tensor)
}
