//! Building tensors.

use super::{Element, Tensor, wrap};
use crate::{DType, Device, Error, Result, symbols::find};
use std::{
    ffi::c_void,
    ptr::{null, null_mut},
};
use tch::TchError;
use torch_sys::C_tensor;

/// Releases memory that a tensor was made over: the memory, and the context that was given with it.
pub(crate) type Release = unsafe extern "C" fn(*mut c_void, *mut c_void);

/// `torch_from_blob` of `torch/csrc/stable/c/shim.h`.
#[rustfmt::skip]
type FromBlob = unsafe extern "C" fn(
    *mut c_void, i64, *const i64, *const i64, i64, i32, i32, i32, *mut *mut C_tensor, i32, *const u8, i64, Release, *mut c_void,
) -> i32;

impl Tensor {
    /// A tensor from Rust values, of one dimension, on the CPU.
    pub fn from_slice<T: Element>(values: &[T]) -> Result<Self> {
        wrap("from_slice", &[], filled(bytes_of(values), &[values.len() as i64], T::KIND))
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
        wrap("from_vec", &[], filled(bytes_of(values), shape, T::KIND))
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

    /// A tensor on the CPU whose bytes `read` writes (little-endian).
    pub(crate) fn from_reader(shape: &[i64], dtype: DType, read: impl FnOnce(&mut [u8]) -> Result<()>) -> Result<Self> {
        let tensor = Self::empty(shape, dtype, Device::Cpu)?;
        let bytes = tensor.numel() * dtype.size();
        if bytes > 0 {
            // SAFETY: memory of a new contiguous tensor of this many bytes, which nothing else refers to.
            read(unsafe { std::slice::from_raw_parts_mut(tensor.0.data_ptr().cast::<u8>(), bytes) })?;
        }
        Ok(tensor)
    }

    /// A contiguous tensor over memory that is owned elsewhere; none where this libtorch cannot make one, and then
    /// nothing is released. When nothing refers to the memory any more, `release` is called with it and `context`, on
    /// whatever thread that is.
    ///
    /// # Safety
    /// The memory must hold that many values, be aligned for them and writable, be used by nothing else, and stay valid
    /// until `release` is called.
    pub(crate) unsafe fn from_memory(
        memory: *mut u8,
        shape: &[i64],
        dtype: DType,
        context: *mut c_void,
        release: Release,
    ) -> Option<Self> {
        let function = find(c"torch_from_blob")?;
        // SAFETY: the type is the one declared in the header.
        let from_blob = unsafe { std::mem::transmute::<*mut c_void, FromBlob>(function) };
        let mut strides = vec![1; shape.len()];
        for dim in (1..shape.len()).rev() {
            strides[dim - 1] = strides[dim] * shape[dim].max(1);
        }
        let (rank, dtype, mut tensor) = (shape.len() as i64, i32::from(dtype.scalar_type()), null_mut());
        // Of the zeros, the first is the offset; the others stand for the CPU (whose index is -1), the strided layout,
        // and no opaque metadata. SAFETY: guaranteed by the caller; shape and strides outlive the call.
        let status = unsafe {
            let (sizes, strides, data) = (shape.as_ptr(), strides.as_ptr(), memory.cast::<c_void>());
            from_blob(data, rank, sizes, strides, 0, dtype, 0, -1, &raw mut tensor, 0, null(), 0, release, context)
        };
        // SAFETY: on success, a new tensor owned by the caller.
        (status == 0 && !tensor.is_null()).then(|| Self::from_tch(unsafe { tch::Tensor::from_ptr(tensor) }))
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
    ///
    /// ```
    /// use mm_core::{Device, Tensor};
    /// # fn main() -> mm_core::Result<()> {
    /// let rows = vec![Tensor::new([[1f32, 2.0]], Device::Cpu)?, Tensor::new([[3f32, 4.0]], Device::Cpu)?];
    /// assert_eq!(Tensor::cat(&rows, 0)?.shape(), [2, 2]);
    /// assert_eq!(Tensor::cat([&rows[0], &rows[1]], 1)?.shape(), [1, 4]);
    /// assert_eq!(Tensor::stack(rows.iter().rev(), 0)?.to_vec::<f32>()?, [3.0, 4.0, 1.0, 2.0]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If there is no tensor, or the shapes differ in another dimension.
    pub fn cat<I>(tensors: I, dim: i64) -> Result<Self>
    where
        I: IntoIterator<Item: AsRef<Tensor>>,
    {
        joined("cat", tensors, |raw| tch::Tensor::f_cat(raw, dim))
    }

    /// Stacks tensors of one shape along a new dimension.
    ///
    /// # Errors
    /// If there is no tensor, or the shapes differ.
    pub fn stack<I>(tensors: I, dim: i64) -> Result<Self>
    where
        I: IntoIterator<Item: AsRef<Tensor>>,
    {
        joined("stack", tensors, |raw| tch::Tensor::f_stack(raw, dim))
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

/// Joins tensors that anything yields, by value or by reference.
fn joined<I>(
    op: &'static str,
    tensors: I,
    join: impl FnOnce(&[&tch::Tensor]) -> Result<tch::Tensor, TchError>,
) -> Result<Tensor>
where
    I: IntoIterator<Item: AsRef<Tensor>>,
{
    let tensors: Vec<I::Item> = tensors.into_iter().collect();
    let tensors: Vec<&Tensor> = tensors.iter().map(AsRef::as_ref).collect();
    let raw: Vec<&tch::Tensor> = tensors.iter().map(|t| &t.0).collect();
    wrap(op, &tensors, join(&raw))
}

fn bytes_of<T: Element>(values: &[T]) -> &[u8] {
    // SAFETY: the element types are plain numbers, whose bytes may be read.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) }
}

/// A new tensor on the CPU with these bytes, as many as the shape needs. (tch's own function zeroes the memory first.)
fn filled(bytes: &[u8], shape: &[i64], kind: tch::Kind) -> Result<tch::Tensor, TchError> {
    let tensor = tch::Tensor::f_empty(shape, (kind, tch::Device::Cpu))?;
    // SAFETY: a new contiguous tensor of this many bytes, which nothing else refers to.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), tensor.data_ptr().cast::<u8>(), bytes.len()) };
    Ok(tensor)
}
