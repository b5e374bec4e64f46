//! Mixed precision: matrix products and convolutions in bfloat16, other operations in float32, as libtorch's autocast
//! sorts them.
//!
//! tch's own switch knows CUDA and float16 only, whose gradients would have to be scaled; `shim.cpp` reaches the rest.

use crate::Device;
use std::cell::Cell;

/// libtorch's switches of one kind of device, in this thread.
#[repr(C)]
#[derive(Clone, Copy)]
struct State {
    enabled: bool,
    dtype: i8,
}

unsafe extern "C" {
    fn mm_autocast_enter(cuda: bool) -> State;
    fn mm_autocast_leave(cuda: bool, before: State);
}

thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });

/// Whether this thread is inside [`autocast`].
pub(crate) fn is_enabled() -> bool {
    DEPTH.get() > 0
}

/// Runs `body` with matrix products and convolutions in bfloat16 on this device. Calls may be nested, also for different
/// devices.
pub fn autocast<T>(device: Device, body: impl FnOnce() -> T) -> T {
    let cuda = device != Device::Cpu;
    // SAFETY: sets variables of this thread.
    let before = unsafe { mm_autocast_enter(cuda) };
    DEPTH.set(DEPTH.get() + 1);
    // Leaves autocast even if `body` panics.
    let _leave = Leave { cuda, before };
    body()
}

struct Leave {
    cuda: bool,
    before: State,
}

impl Drop for Leave {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        // SAFETY: sets variables of this thread.
        unsafe { mm_autocast_leave(self.cuda, self.before) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Tensor};

    #[test]
    fn products_are_bfloat16_inside_and_gradients_float32() {
        let a = Tensor::randn(&[8, 8], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let product = autocast(Device::Cpu, || a.matmul(&a).unwrap());
        assert_eq!(product.dtype().unwrap(), DType::BF16);
        product.max().unwrap().backward().unwrap();
        assert_eq!(a.grad().unwrap().dtype().unwrap(), DType::F32);
        assert_eq!(a.matmul(&a).unwrap().dtype().unwrap(), DType::F32);
    }

    #[test]
    fn leaving_restores_each_device() {
        let a = Tensor::randn(&[8, 8], DType::F32, Device::Cpu).unwrap();
        let dtype = || a.matmul(&a).unwrap().dtype().unwrap();
        // The switch of another kind of device can be set without one.
        let (inside, between, outside) = autocast(Device::Cuda(0), || {
            let inside = autocast(Device::Cpu, || autocast(Device::Cuda(0), dtype));
            let between = dtype();
            (inside, between, autocast(Device::Cpu, || (autocast(Device::Cpu, dtype), dtype())))
        });
        assert_eq!((inside, between), (DType::BF16, DType::F32));
        assert_eq!((outside, dtype()), ((DType::BF16, DType::BF16), DType::F32));
        // SAFETY: reads a variable of this thread.
        assert_eq!(unsafe { torch_sys::at_autocast_is_enabled() }, 0);
    }
}
