//! Mixed precision: matrix products and convolutions in bfloat16, other operations in float32, as libtorch's autocast
//! sorts them.
//!
//! tch's own switch knows CUDA and float16 only, whose gradients would have to be scaled. These are the functions of
//! `ATen/autocast_mode.h` that Python's `torch.autocast` calls, by their names in the library.

use crate::{DType, Device};
use std::cell::Cell;

unsafe extern "C" {
    #[link_name = "_ZN2at8autocast19is_autocast_enabledEN3c1010DeviceTypeE"]
    fn is_autocast_enabled(device_type: i8) -> bool;
    #[link_name = "_ZN2at8autocast20set_autocast_enabledEN3c1010DeviceTypeEb"]
    fn set_autocast_enabled(device_type: i8, enabled: bool);
    #[link_name = "_ZN2at8autocast18get_autocast_dtypeEN3c1010DeviceTypeE"]
    fn get_autocast_dtype(device_type: i8) -> i8;
    #[link_name = "_ZN2at8autocast18set_autocast_dtypeEN3c1010DeviceTypeENS1_10ScalarTypeE"]
    fn set_autocast_dtype(device_type: i8, scalar_type: i8);
    #[link_name = "_ZN2at8autocast17increment_nestingEv"]
    fn increment_nesting() -> i32;
    #[link_name = "_ZN2at8autocast17decrement_nestingEv"]
    fn decrement_nesting() -> i32;
    #[link_name = "_ZN2at8autocast11clear_cacheEv"]
    fn clear_cache();
}

thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });

/// Whether this thread is inside [`autocast`].
pub(crate) fn is_enabled() -> bool {
    DEPTH.get() > 0
}

/// Runs `body` with matrix products and convolutions in bfloat16 on this device. Calls may be nested, also for
/// different devices.
pub fn autocast<T>(device: Device, body: impl FnOnce() -> T) -> T {
    // `c10::DeviceType`.
    let device_type = i8::from(device != Device::Cpu);
    // SAFETY: reads and sets variables of this thread; none of these functions throws for a device that exists.
    let before = unsafe {
        let before = (is_autocast_enabled(device_type), get_autocast_dtype(device_type));
        set_autocast_dtype(device_type, DType::BF16.scalar_type());
        set_autocast_enabled(device_type, true);
        increment_nesting();
        before
    };
    DEPTH.set(DEPTH.get() + 1);
    // Leaves autocast even if `body` panics.
    let _leave = Leave { device_type, before };
    body()
}

struct Leave {
    device_type: i8,
    before: (bool, i8),
}

impl Drop for Leave {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        let (enabled, scalar_type) = self.before;
        // SAFETY: as above. At the outermost level, the cached bfloat16 copies of weights are dropped, which are valid
        // for one step.
        unsafe {
            if decrement_nesting() == 0 {
                clear_cache();
            }
            set_autocast_dtype(self.device_type, scalar_type);
            set_autocast_enabled(self.device_type, enabled);
        }
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
