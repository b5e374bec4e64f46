//! Mixed precision: matrix products and convolutions in bfloat16, what needs more in float32, as libtorch sorts its operators.
//! tch's own switch knows GPUs only, and leaves them at float16, whose gradients would have to be scaled; libtorch's functions for the
//! others are looked up when the program runs.

use crate::{Device, kernels::find};
use std::{cell::Cell, ffi::c_void, mem::transmute, sync::OnceLock};

/// c10::DeviceType and c10::ScalarType::BFloat16.
const CPU: i8 = 0;
const CUDA: i8 = 1;
const BFLOAT16: i8 = 15;

struct Switch {
    set_dtype: unsafe extern "C" fn(i8, i8),
    set_enabled: unsafe extern "C" fn(i8, bool),
    deeper: unsafe extern "C" fn() -> i32,
    shallower: unsafe extern "C" fn() -> i32,
    clear_cache: unsafe extern "C" fn(),
}

fn switch() -> Option<&'static Switch> {
    static SWITCH: OnceLock<Option<Switch>> = OnceLock::new();
    let look_up = || {
        // SAFETY: these are the types that ATen/autocast_mode.h of this libtorch declares, by their names in the Itanium C++ ABI.
        unsafe {
            Some(Switch {
                set_dtype: transmute::<*mut c_void, unsafe extern "C" fn(i8, i8)>(find(
                    c"_ZN2at8autocast18set_autocast_dtypeEN3c1010DeviceTypeENS1_10ScalarTypeE",
                )?),
                set_enabled: transmute::<*mut c_void, unsafe extern "C" fn(i8, bool)>(find(
                    c"_ZN2at8autocast20set_autocast_enabledEN3c1010DeviceTypeEb",
                )?),
                deeper: transmute::<*mut c_void, unsafe extern "C" fn() -> i32>(find(
                    c"_ZN2at8autocast17increment_nestingEv",
                )?),
                shallower: transmute::<*mut c_void, unsafe extern "C" fn() -> i32>(find(
                    c"_ZN2at8autocast17decrement_nestingEv",
                )?),
                clear_cache: transmute::<*mut c_void, unsafe extern "C" fn()>(find(c"_ZN2at8autocast11clear_cacheEv")?),
            })
        }
    };
    SWITCH.get_or_init(look_up).as_ref()
}

thread_local!(static DEPTH: Cell<u32> = const { Cell::new(0) });

/// Whether this thread is within [`autocast`].
pub(crate) fn is_within() -> bool {
    DEPTH.get() > 0
}

/// Runs `body` with matrix products and convolutions in bfloat16 on this device, everything that needs more in float32. A libtorch
/// without the switch computes all in float32.
pub fn autocast<T>(device: Device, body: impl FnOnce() -> T) -> T {
    let Some(switch) = switch() else { return body() };
    let device = if device == Device::Cpu { CPU } else { CUDA };
    // SAFETY: they set variables of this thread.
    unsafe {
        (switch.set_dtype)(device, BFLOAT16);
        (switch.set_enabled)(device, true);
        (switch.deeper)();
    }
    DEPTH.set(DEPTH.get() + 1);
    // Also when `body` panics.
    let _end = End(switch, device);
    body()
}

struct End(&'static Switch, i8);

impl Drop for End {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        // SAFETY: as above. The weights' copies in bfloat16 are good for one step.
        unsafe {
            if (self.0.shallower)() == 0 {
                (self.0.clear_cache)();
                (self.0.set_enabled)(self.1, false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DType, Tensor};

    #[test]
    fn products_are_made_in_bfloat16_until_it_ends_and_gradients_are_not() {
        let a = Tensor::randn(&[8, 8], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let product = autocast(Device::Cpu, || a.matmul(&a).unwrap());
        assert_eq!(product.dtype().unwrap(), DType::BF16);
        product.max().unwrap().backward().unwrap();
        assert_eq!(a.grad().unwrap().dtype().unwrap(), DType::F32);
        assert_eq!(a.matmul(&a).unwrap().dtype().unwrap(), DType::F32);
    }
}
