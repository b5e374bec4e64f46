//! libtorch's fused oneDNN operators: a matrix product or a convolution together with what follows it (an activation,
//! the sum with a residual), on weights in oneDNN's own layout.
//!
//! tch does not wrap them, but libtorch exports them as plain C for its compiled models (`aoti_torch_…`,
//! torch/csrc/inductor/aoti_torch/c/shim_cpu.h of 2.11). They are looked up at run time, so that the ordinary operators
//! serve where a libtorch lacks them.

use crate::{DType, Device, Error, Result, Tensor, activation::Activation, symbols::find};
use std::{
    ffi::{CStr, c_char, c_void},
    ptr::{null, null_mut},
    sync::OnceLock,
};

type Handle = *mut c_void;
type Linear = unsafe extern "C" fn(
    Handle,
    Handle,
    *mut Handle,
    *const c_char,
    *const *const f64,
    i64,
    *const *const c_char,
    *mut Handle,
) -> i32;
type LinearAdd = unsafe extern "C" fn(Handle, Handle, Handle, *mut Handle, *const c_char, *mut Handle) -> i32;
#[rustfmt::skip]
type Convolution = unsafe extern "C" fn(
    Handle, Handle, *mut Handle, *const i64, i64, *const i64, i64, *const i64, i64, i64,
    *const c_char, *const *const f64, i64, *const *const c_char, *mut Handle,
) -> i32;
#[rustfmt::skip]
type ConvolutionAdd = unsafe extern "C" fn(
    Handle, Handle, Handle, *mut Handle, *const i64, i64, *const i64, i64, *const i64, i64, i64,
    *const c_char, *mut f64, *const *const c_char, *const *const f64, i64, *const *const c_char, *mut Handle,
) -> i32;
type Dispatch = unsafe extern "C" fn(*const c_char, *const c_char, *mut u64) -> i32;
type NewHandle = unsafe extern "C" fn(Handle, *mut Handle) -> i32;
type GradModeEnabled = unsafe extern "C" fn() -> bool;

struct Kernels {
    linear: Linear,
    linear_add: LinearAdd,
    convolution: Convolution,
    convolution_add: ConvolutionAdd,
    dispatch: Dispatch,
    new_handle: NewHandle,
    grad_mode_enabled: GradModeEnabled,
}

fn kernels() -> Option<&'static Kernels> {
    static KERNELS: OnceLock<Option<Kernels>> = OnceLock::new();
    KERNELS.get_or_init(look_up).as_ref()
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn look_up() -> Option<Kernels> {
    // To measure their effect, and for machines on which they fail.
    if std::env::var_os("MM_FUSED").is_some_and(|v| v == "0") {
        return None;
    }
    // SAFETY: the types are those declared in shim_cpu.h and shim.h of this libtorch.
    unsafe {
        Some(Kernels {
            linear: std::mem::transmute::<Handle, Linear>(find(c"aoti_torch_cpu__linear_pointwise")?),
            linear_add: std::mem::transmute::<Handle, LinearAdd>(find(c"aoti_torch_cpu__linear_pointwise_binary")?),
            convolution: std::mem::transmute::<Handle, Convolution>(find(
                c"aoti_torch_cpu_mkldnn__convolution_pointwise",
            )?),
            convolution_add: std::mem::transmute::<Handle, ConvolutionAdd>(find(
                c"aoti_torch_cpu_mkldnn__convolution_pointwise_binary_",
            )?),
            dispatch: std::mem::transmute::<Handle, Dispatch>(find(c"aoti_torch_call_dispatcher")?),
            new_handle: std::mem::transmute::<Handle, NewHandle>(find(c"aoti_torch_new_tensor_handle")?),
            grad_mode_enabled: std::mem::transmute::<Handle, GradModeEnabled>(find(
                c"aoti_torch_grad_mode_is_enabled",
            )?),
        })
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn look_up() -> Option<Kernels> {
    None
}

/// Whether the operators can apply this weight: its type on this processor, and its device.
pub(crate) fn supports_weight(weight: &Tensor) -> bool {
    let supported = match weight.dtype() {
        Ok(DType::F32) => true,
        Ok(DType::BF16) => supports_bfloat16(),
        _ => false,
    };
    supported && weight.device() == Device::Cpu && kernels().is_some()
}

/// Whether oneDNN computes in bfloat16 on this processor; without these instructions it refuses to.
#[cfg(target_arch = "x86_64")]
fn supports_bfloat16() -> bool {
    std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512dq")
}

/// Packed bfloat16 kernels are used on x86-64 only.
#[cfg(not(target_arch = "x86_64"))]
fn supports_bfloat16() -> bool {
    false
}

/// Whether the operators accept this input: they have no derivatives, so it must not require gradients.
pub(crate) fn accepts_input(input: &Tensor, weight: &Tensor) -> bool {
    !input.0.requires_grad() && input.0.kind() == weight.0.kind() && input.0.numel() > 0
}

/// Whether gradients are recorded on this thread; true if unknown.
pub(crate) fn grad_enabled() -> bool {
    // SAFETY: the function reads a flag of this thread.
    kernels().is_none_or(|k| unsafe { (k.grad_mode_enabled)() })
}

/// Name and algorithm of an activation in these operators.
fn activation_names(activation: Activation) -> Option<(&'static CStr, &'static CStr)> {
    Some(match activation {
        Activation::Identity => (c"none", c""),
        Activation::Gelu => (c"gelu", c"none"),
        Activation::GeluNew => (c"gelu", c"tanh"),
        Activation::Relu => (c"relu", c""),
        Activation::Relu6 => (c"hardtanh", c""),
        Activation::Silu => (c"swish", c""),
        Activation::Tanh => (c"tanh", c""),
        Activation::Sigmoid => (c"sigmoid", c""),
        Activation::QuickGelu => return None,
    })
}

/// Whether the operators can compute this activation.
pub(crate) fn fuses_activation(activation: Activation) -> bool {
    activation_names(activation).is_some()
}

fn handle(tensor: &Tensor) -> Handle {
    tensor.0.as_ptr().cast_mut().cast()
}

fn check_status(op: &'static str, status: i32, out: Handle, inputs: &[&Tensor]) -> Result<Tensor> {
    if status != 0 || out.is_null() {
        let found = inputs.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" and ");
        let reason = "oneDNN failed; set MM_FUSED=0 in the environment to compute without its fused operators".into();
        return Err(Error::Tensor { op, found, reason });
    }
    // SAFETY: on success, `out` is a new tensor owned by the caller.
    Ok(Tensor::from_tch(unsafe { tch::Tensor::from_ptr(out.cast()) }))
}

/// A weight `[out_features, in_features]` in the layout that oneDNN prefers: an opaque tensor for [`linear`] and
/// [`linear_add`] only.
pub(crate) fn pack_linear(weight: &Tensor) -> Result<Tensor> {
    let failed = || check_status("pack_linear", 1, null_mut(), &[weight]);
    let Some(k) = kernels() else { return failed() };
    let weight = weight.detach()?.contiguous()?;
    let mut owned = null_mut();
    // SAFETY: the handle is that of a live tensor; the new one is passed on below.
    if unsafe { (k.new_handle)(handle(&weight), &raw mut owned) } != 0 {
        return failed();
    }
    // The operator's arguments: the tensor, and no batch size.
    let mut stack = [owned as u64, 0];
    // SAFETY: one value per argument of the schema; the call consumes the tensor and stores its result in the first
    // element.
    let status = unsafe { (k.dispatch)(c"mkldnn::_reorder_linear_weight".as_ptr(), c"".as_ptr(), stack.as_mut_ptr()) };
    check_status("pack_linear", status, stack[0] as Handle, &[&weight])
}

/// Calls `call` with the name of an activation, its parameters and their number, and its algorithm.
fn with_activation_args<T>(
    activation: Activation,
    call: impl FnOnce(&*const c_char, *const *const f64, i64, *const *const c_char) -> T,
) -> Option<T> {
    let (name, algorithm) = activation_names(activation)?;
    let bounds = [0.0f64, 6.0];
    let scalars = [&raw const bounds[0], &raw const bounds[1]];
    let count = if activation == Activation::Relu6 { 2 } else { 0 };
    let (name, algorithm) = (name.as_ptr(), algorithm.as_ptr());
    Some(call(&name, scalars.as_ptr(), count, &raw const algorithm))
}

/// A bias as the operators take it: a pointer to its handle, or null.
struct Bias(Handle);

impl Bias {
    fn new(bias: Option<&Tensor>) -> Self {
        Self(bias.map_or(null_mut(), handle))
    }

    fn pointer(&mut self) -> *mut Handle {
        if self.0.is_null() { null_mut() } else { &raw mut self.0 }
    }
}

/// `activation(input · weightᵀ + bias)`, with a weight from [`pack_linear`].
pub(crate) fn linear(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    let (mut bias, mut out) = (Bias::new(bias), null_mut());
    let status = kernels().and_then(|k| {
        with_activation_args(activation, |name, scalars, count, algorithm| {
            let (x, w) = (handle(input), handle(weight));
            // SAFETY: handles of live tensors; strings and parameters outlive the call.
            unsafe { (k.linear)(x, w, bias.pointer(), *name, scalars, count, algorithm, &raw mut out) }
        })
    });
    check_status("linear", status.unwrap_or(1), out, &[input])
}

/// `input · weightᵀ + bias + residual`, with a weight from [`pack_linear`].
pub(crate) fn linear_add(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, residual: &Tensor) -> Result<Tensor> {
    let (mut bias, mut out) = (Bias::new(bias), null_mut());
    let status = kernels().map(|k| {
        let (x, other, w) = (handle(input), handle(residual), handle(weight));
        // SAFETY: as above.
        unsafe { (k.linear_add)(x, other, w, bias.pointer(), c"add".as_ptr(), &raw mut out) }
    });
    check_status("linear_add", status.unwrap_or(1), out, &[input, residual])
}

/// Padding, stride and groups of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct ConvParams {
    pub(crate) padding: [i64; 2],
    pub(crate) stride: [i64; 2],
    pub(crate) groups: i64,
}

/// `activation(convolution(input) + residual)`; the result overwrites the residual's memory.
#[rustfmt::skip]
pub(crate) fn convolution(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    params: ConvParams,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (mut bias, mut out) = (Bias::new(bias), null_mut());
    let ConvParams { padding, stride, groups } = params;
    let (padding, stride, dilation) = (padding.as_ptr(), stride.as_ptr(), [1i64, 1]);
    let (x, w, dilation) = (handle(input), handle(weight), dilation.as_ptr());
    let mut alpha = 1.0f64;
    let status = kernels().and_then(|k| {
        with_activation_args(activation, |name, scalars, count, algorithm| {
            let Some(residual) = residual else {
                // SAFETY: as above; each list comes with its length.
                return unsafe {
                    (k.convolution)(
                        x, w, bias.pointer(), padding, 2, stride, 2, dilation, 2, groups,
                        *name, scalars, count, algorithm, &raw mut out,
                    )
                };
            };
            let name: *const *const c_char = if activation == Activation::Identity { null() } else { name };
            // SAFETY: as above.
            unsafe {
                (k.convolution_add)(
                    handle(residual), x, w, bias.pointer(), padding, 2, stride, 2, dilation, 2, groups,
                    c"add".as_ptr(), &raw mut alpha, name, scalars, count, algorithm, &raw mut out,
                )
            }
        })
    });
    check_status("convolution", status.unwrap_or(1), out, &[input, weight])
}
