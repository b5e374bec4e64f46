//! libtorch's store, gloo backend and reducer, through `shim.cpp`. Errors are the texts of C++ exceptions.

use crate::{ffi, nccl::CreateBackend};
use mm_core::{DType, Device, Tensor};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr::{NonNull, null_mut},
    time::Duration,
};

/// Calls a function of the shim, whose last argument takes the text of an exception.
fn call<T>(function: impl FnOnce(*mut *mut c_char) -> T) -> Result<T, String> {
    let mut error = null_mut();
    let value = function(&raw mut error);
    if error.is_null() {
        return Ok(value);
    }
    // SAFETY: the shim allocated a text that ends in zero; it is freed once.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    unsafe { ffi::mm_dist_free(error) };
    Err(text)
}

fn object(pointer: *mut c_void) -> Result<NonNull<c_void>, String> {
    NonNull::new(pointer).ok_or_else(|| "libtorch returned no object".to_owned())
}

fn c_text(text: &str) -> Result<CString, String> {
    CString::new(text).map_err(|_| format!("`{text}` has a zero byte"))
}

fn pointer(tensor: &Tensor) -> *mut c_void {
    tensor.as_tch().as_ptr().cast_mut().cast()
}

fn milliseconds(timeout: Duration) -> i64 {
    i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX / 2)
}

/// Keys and values that all processes see.
pub struct Store(NonNull<c_void>);

// SAFETY: libtorch's TCPStore guards its connection with a mutex, and nothing of it belongs to a thread.
unsafe impl Send for Store {}

impl Store {
    /// Connects to the store at an address, and starts it where this process keeps it.
    pub fn connect(host: &str, port: u16, is_server: bool, timeout: Duration) -> Result<Self, String> {
        let host = c_text(host)?;
        // SAFETY: the text outlives the call.
        let store = call(|error| unsafe {
            ffi::mm_dist_tcp_store(host.as_ptr(), port, is_server, milliseconds(timeout), error)
        })?;
        object(store).map(Self)
    }

    /// The same store under names that begin with `prefix`.
    pub fn prefixed(&self, prefix: &str) -> Result<Self, String> {
        let prefix = c_text(prefix)?;
        // SAFETY: the store and the text outlive the call; the new object holds a reference of its own.
        let store = call(|error| unsafe { ffi::mm_dist_prefix_store(self.0.as_ptr(), prefix.as_ptr(), error) })?;
        object(store).map(Self)
    }

    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        let key = c_text(key)?;
        // SAFETY: all pointers outlive the call.
        call(|error| unsafe {
            ffi::mm_dist_store_set(self.0.as_ptr(), key.as_ptr(), value.as_ptr(), value.len(), error);
        })
    }

    /// A value; waits until it is set.
    pub fn get(&self, key: &str) -> Result<Vec<u8>, String> {
        let (key, mut size) = (c_text(key)?, 0);
        // SAFETY: the shim returns `size` bytes in memory that is freed once.
        unsafe {
            let value = call(|error| ffi::mm_dist_store_get(self.0.as_ptr(), key.as_ptr(), &raw mut size, error))?;
            let copy = std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec();
            ffi::mm_dist_free(value);
            Ok(copy)
        }
    }

    /// Adds to a counter, which starts at 0, and returns it; does not wait.
    pub fn add(&self, key: &str, amount: i64) -> Result<i64, String> {
        let key = c_text(key)?;
        // SAFETY: the store and the text outlive the call.
        call(|error| unsafe { ffi::mm_dist_store_add(self.0.as_ptr(), key.as_ptr(), amount, error) })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { ffi::mm_dist_store_free(self.0.as_ptr()) }
    }
}

/// The version of libtorch that this crate was compiled with.
pub fn torch_version() -> String {
    // SAFETY: the shim returns a constant that ends in zero.
    unsafe { CStr::from_ptr(ffi::mm_dist_torch_version()) }.to_string_lossy().into_owned()
}

/// A gloo process group, and NCCL for tensors on GPUs after [`Gloo::add_nccl`]. Not `Sync`: the order of its operations
/// has to be the same in all processes.
pub struct Gloo(NonNull<c_void>);

impl Gloo {
    /// Connects with the other processes; `address` is a host name or an address of this host, `if:NAME` a network
    /// interface, or empty for the address of the host's name.
    pub fn connect(
        store: &Store,
        rank: usize,
        world_size: usize,
        timeout: Duration,
        address: &str,
    ) -> Result<Self, String> {
        let address = c_text(address)?;
        let number = |n: usize| c_int::try_from(n).map_err(|_| format!("{n} processes are too many"));
        let (rank, size) = (number(rank)?, number(world_size)?);
        // SAFETY: the store and the text outlive the call; the group holds a reference to the store.
        let group = call(|error| unsafe {
            ffi::mm_dist_gloo(store.0.as_ptr(), rank, size, milliseconds(timeout), address.as_ptr(), error)
        })?;
        object(group).map(Self)
    }

    /// Lets tensors on a GPU travel through NCCL from now on; `name` is that of the group in NCCL's messages.
    pub fn add_nccl(
        &self,
        store: &Store,
        create: CreateBackend,
        timeout: Duration,
        gpu: usize,
        name: &str,
    ) -> Result<(), String> {
        let name = c_text(name)?;
        let gpu = c_int::try_from(gpu).map_err(|_| format!("there is no GPU {gpu}"))?;
        // SAFETY: the store and the text outlive the call; `create` has the type of `mm_nccl_backend`, whose library was
        // compiled with the same version of libtorch and stays loaded.
        call(|error| unsafe {
            let (store, timeout) = (store.0.as_ptr(), milliseconds(timeout));
            ffi::mm_dist_group_nccl(self.0.as_ptr(), store, create, timeout, gpu, name.as_ptr(), error);
        })
    }

    /// Reduces contiguous tensors of all processes, in place.
    pub fn all_reduce(&self, tensor: &Tensor, operation: c_int) -> Result<(), String> {
        // SAFETY: the operation is over when the call returns, until when the tensor lives.
        call(|error| unsafe { ffi::mm_dist_all_reduce(self.0.as_ptr(), pointer(tensor), operation, error) })
    }

    /// Batch normalization by the statistics of all processes: the output, and mean and unbiased variance `[channels]`.
    pub fn batch_norm(&self, input: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<[Tensor; 3], String> {
        let empty = || Tensor::zeros(&[0], DType::F32, Device::Cpu).map_err(|error| error.to_string());
        let outputs = [empty()?, empty()?, empty()?];
        let pointers: Vec<*mut c_void> = outputs.iter().map(pointer).collect();
        // SAFETY: the operation is over when the call returns, until when the tensors live; nothing else refers to the
        // outputs, and their node in the graph holds references to the group and the inputs.
        call(|error| unsafe {
            let (input, weight, bias) = (pointer(input), pointer(weight), pointer(bias));
            ffi::mm_dist_batch_norm(self.0.as_ptr(), pointers.as_ptr(), input, weight, bias, eps, error);
        })?;
        Ok(outputs)
    }

    /// Overwrites the tensor with that of the rank `root`.
    pub fn broadcast(&self, tensor: &Tensor, root: usize) -> Result<(), String> {
        // SAFETY: as above.
        call(|error| unsafe { ffi::mm_dist_broadcast(self.0.as_ptr(), pointer(tensor), root as i64, error) })
    }

    /// Writes each rank's `input` to one of `outputs`; all have the same shape.
    pub fn all_gather(&self, outputs: &[Tensor], input: &Tensor) -> Result<(), String> {
        let pointers: Vec<*mut c_void> = outputs.iter().map(pointer).collect();
        // SAFETY: as above.
        call(|error| unsafe {
            let (list, count) = (pointers.as_ptr(), pointers.len() as i64);
            ffi::mm_dist_all_gather(self.0.as_ptr(), list, count, pointer(input), error);
        })
    }

    /// Waits for all processes; rank 0's error names those that did not come.
    pub fn barrier(&self) -> Result<(), String> {
        // SAFETY: the group lives.
        call(|error| unsafe { ffi::mm_dist_barrier(self.0.as_ptr(), error) })
    }
}

impl Drop for Gloo {
    fn drop(&mut self) {
        // SAFETY: freed once.
        unsafe { ffi::mm_dist_group_free(self.0.as_ptr()) }
    }
}

/// The positions of parameters in the order in which the backward pass of a loss completes their gradients, without those
/// that it does not reach.
pub fn gradient_order(loss: &Tensor, parameters: &[Tensor]) -> Result<Vec<usize>, String> {
    let pointers: Vec<*mut c_void> = parameters.iter().map(pointer).collect();
    let mut order = vec![0i64; pointers.len()];
    // SAFETY: the tensors live; the shim writes each position once at most.
    let found = call(|error| unsafe {
        let (list, count) = (pointers.as_ptr(), pointers.len() as i64);
        ffi::mm_dist_gradient_order(pointer(loss), list, count, order.as_mut_ptr(), error)
    })?;
    Ok(order.into_iter().take(found as usize).map(|position| position as usize).collect())
}

/// The reducer of `DistributedDataParallel`, with hooks on its parameters.
pub struct Reducer(NonNull<c_void>);

impl Reducer {
    /// The parameters are in the order in which their gradients become ready, as far as that is known.
    pub fn new(gloo: &Gloo, parameters: &[&Tensor], bucket_bytes: usize) -> Result<Self, String> {
        let pointers: Vec<*mut c_void> = parameters.iter().map(|tensor| pointer(tensor)).collect();
        let bytes = i64::try_from(bucket_bytes).unwrap_or(i64::MAX);
        // SAFETY: the reducer holds references of its own to the group and the tensors.
        let reducer = call(|error| unsafe {
            ffi::mm_dist_reducer(gloo.0.as_ptr(), pointers.as_ptr(), pointers.len() as i64, bytes, error)
        })?;
        object(reducer).map(Self)
    }

    pub fn prepare(&self, loss: &Tensor) -> Result<(), String> {
        // SAFETY: the reducer and the tensor live; a backward pass runs in this thread after the call, not during it.
        call(|error| unsafe { ffi::mm_dist_reducer_prepare(self.0.as_ptr(), pointer(loss), error) })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: freed once; its hooks are removed first.
        unsafe { ffi::mm_dist_reducer_free(self.0.as_ptr()) }
    }
}

/// Starts to record the operations of this thread; one thread of the process at a time.
pub fn start_profiler() -> Result<(), String> {
    // SAFETY: the caller sees to it that no other thread records.
    call(|error| unsafe { ffi::mm_dist_profiler_start(error) })
}

/// Ends the recording of this thread, and writes it to a file if one is given.
pub fn stop_profiler(path: Option<&str>) -> Result<(), String> {
    let path = path.map(c_text).transpose()?;
    let pointer = path.as_ref().map_or(std::ptr::null(), |path| path.as_ptr());
    // SAFETY: this thread records; the text outlives the call.
    call(|error| unsafe { ffi::mm_dist_profiler_stop(pointer, error) })
}
