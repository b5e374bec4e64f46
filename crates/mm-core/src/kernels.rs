//! libtorch's fused oneDNN operators: a matrix product or a convolution with what follows it (an activation, the sum with a residual)
//! in one pass, on weights laid out for the processor once. They are no part of tch, but libtorch exports them as plain C for its
//! compiled models (`aoti_torch_…`, torch/csrc/inductor/aoti_torch/c/shim_cpu.h of 2.11); looked up when the program runs, so that
//! a libtorch without them is served by the ordinary operators.

use crate::{DType, Error, Result, Tensor, nn::Activation};
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
type Differentiates = unsafe extern "C" fn() -> bool;

struct Kernels {
    linear: Linear,
    linear_add: LinearAdd,
    convolution: Convolution,
    convolution_add: ConvolutionAdd,
    dispatch: Dispatch,
    new_handle: NewHandle,
    differentiates: Differentiates,
}

fn kernels() -> Option<&'static Kernels> {
    static KERNELS: OnceLock<Option<Kernels>> = OnceLock::new();
    KERNELS.get_or_init(look_up).as_ref()
}

/// A function of the libraries that are loaded, by its name.
#[cfg(unix)]
pub(crate) fn find(name: &CStr) -> Option<Handle> {
    // SAFETY: a look-up by name; nothing is called.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

#[cfg(not(unix))]
pub(crate) fn find(_: &CStr) -> Option<Handle> {
    None
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn look_up() -> Option<Kernels> {
    // For measuring what they bring, and for a machine where they fail.
    if std::env::var_os("MM_FUSED").is_some_and(|v| v == "0") {
        return None;
    }
    // SAFETY: these are the types that shim_cpu.h and shim.h of this libtorch declare.
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
            differentiates: std::mem::transmute::<Handle, Differentiates>(find(c"aoti_torch_grad_mode_is_enabled")?),
        })
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn look_up() -> Option<Kernels> {
    None
}

/// Whether these operators support a frozen weight: its type on this processor, and its device.
pub(crate) fn serve(weight: &Tensor) -> bool {
    let supported = match weight.dtype() {
        Ok(DType::F32) => true,
        Ok(DType::BF16) => supports_bfloat16(),
        _ => false,
    };
    supported && weight.device() == crate::Device::Cpu && kernels().is_some()
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

/// Whether they serve this input: nothing of it is differentiated, for they have no derivatives.
pub(crate) fn take(input: &Tensor, weight: &Tensor) -> bool {
    !input.0.requires_grad() && input.0.kind() == weight.0.kind() && input.0.numel() > 0
}

/// Whether gradients are recorded on this thread; yes where it is not known.
pub(crate) fn recording() -> bool {
    // SAFETY: it reads a flag of this thread.
    kernels().is_none_or(|k| unsafe { (k.differentiates)() })
}

/// How an activation is called by these operators.
fn words(activation: Activation) -> Option<(&'static CStr, &'static CStr)> {
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

/// Whether an activation can be fused as it is.
pub(crate) fn fuses(activation: Activation) -> bool {
    words(activation).is_some()
}

fn handle(tensor: &Tensor) -> Handle {
    tensor.0.as_ptr().cast_mut().cast()
}

fn taken(op: &'static str, status: i32, out: Handle, inputs: &[&Tensor]) -> Result<Tensor> {
    if status != 0 || out.is_null() {
        let found = inputs.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" and ");
        let reason = "oneDNN refused; MM_FUSED=0 in the environment computes without its fused operators".into();
        return Err(Error::Tensor { op, found, reason });
    }
    // SAFETY: a success means that `out` is a new tensor, which is now ours.
    Ok(Tensor(unsafe { tch::Tensor::from_ptr(out.cast()) }))
}

/// A weight `[output, input]` laid out as oneDNN likes it best here; an opaque tensor for [`linear`] alone.
pub(crate) fn pack_linear(weight: &Tensor) -> Result<Tensor> {
    let refuse = || taken("pack_linear", 1, null_mut(), &[weight]);
    let Some(k) = kernels() else { return refuse() };
    let weight = weight.detach()?.contiguous()?;
    let mut own = null_mut();
    // SAFETY: the handle is of a live tensor; the new one is given away below.
    if unsafe { (k.new_handle)(handle(&weight), &raw mut own) } != 0 {
        return refuse();
    }
    // The operator's arguments: the tensor, and no batch size.
    let mut stack = [own as u64, 0];
    // SAFETY: as many values as the schema has arguments; the call takes the tensor and leaves its result in the first place.
    let status = unsafe { (k.dispatch)(c"mkldnn::_reorder_linear_weight".as_ptr(), c"".as_ptr(), stack.as_mut_ptr()) };
    taken("pack_linear", status, stack[0] as Handle, &[&weight])
}

/// What the operators are told of an activation: its name, numbers that go with it, and how many, and its kind.
fn told<T>(
    activation: Activation,
    call: impl FnOnce(&*const c_char, *const *const f64, i64, *const *const c_char) -> T,
) -> Option<T> {
    let (word, algorithm) = words(activation)?;
    let bounds = [0.0f64, 6.0];
    let scalars = [&raw const bounds[0], &raw const bounds[1]];
    let count = if activation == Activation::Relu6 { 2 } else { 0 };
    let (word, algorithm) = (word.as_ptr(), algorithm.as_ptr());
    Some(call(&word, scalars.as_ptr(), count, &raw const algorithm))
}

/// A bias as the operators take it: where its handle lies, or nowhere.
struct Bias(Handle);

impl Bias {
    fn of(bias: Option<&Tensor>) -> Self {
        Self(bias.map_or(null_mut(), handle))
    }

    fn place(&mut self) -> *mut Handle {
        if self.0.is_null() { null_mut() } else { &raw mut self.0 }
    }
}

/// `activation(input · weightᵀ + bias)`, with a weight of [`pack_linear`].
pub(crate) fn linear(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, activation: Activation) -> Result<Tensor> {
    let (mut bias, mut out) = (Bias::of(bias), null_mut());
    let status = kernels().and_then(|k| {
        told(activation, |word, scalars, count, algorithm| {
            let (x, w) = (handle(input), handle(weight));
            // SAFETY: handles of live tensors; strings and numbers outlive the call.
            unsafe { (k.linear)(x, w, bias.place(), *word, scalars, count, algorithm, &raw mut out) }
        })
    });
    taken("linear", status.unwrap_or(1), out, &[input])
}

/// `input · weightᵀ + bias + residual`.
pub(crate) fn linear_add(input: &Tensor, weight: &Tensor, bias: Option<&Tensor>, residual: &Tensor) -> Result<Tensor> {
    let (mut bias, mut out) = (Bias::of(bias), null_mut());
    let status = kernels().map(|k| {
        let (x, other, w) = (handle(input), handle(residual), handle(weight));
        // SAFETY: as above.
        unsafe { (k.linear_add)(x, other, w, bias.place(), c"add".as_ptr(), &raw mut out) }
    });
    taken("linear_add", status.unwrap_or(1), out, &[input, residual])
}

/// Sizes of a convolution.
#[derive(Clone, Copy)]
pub(crate) struct Window {
    pub(crate) padding: [i64; 2],
    pub(crate) stride: [i64; 2],
    pub(crate) groups: i64,
}

/// `activation(convolution(input) + residual)`; the residual's memory is used for the result.
#[rustfmt::skip]
pub(crate) fn convolution(
    input: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    window: Window,
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let (mut bias, mut out) = (Bias::of(bias), null_mut());
    let Window { padding, stride, groups } = window;
    let (padding, stride, dilation) = (padding.as_ptr(), stride.as_ptr(), [1i64, 1]);
    let (x, w, dilation) = (handle(input), handle(weight), dilation.as_ptr());
    let mut alpha = 1.0f64;
    let status = kernels().and_then(|k| {
        told(activation, |word, scalars, count, algorithm| {
            let Some(residual) = residual else {
                // SAFETY: as above; each list comes with its length.
                return unsafe {
                    (k.convolution)(
                        x, w, bias.place(), padding, 2, stride, 2, dilation, 2, groups,
                        *word, scalars, count, algorithm, &raw mut out,
                    )
                };
            };
            let word: *const *const c_char = if activation == Activation::Identity { null() } else { word };
            // SAFETY: as above.
            unsafe {
                (k.convolution_add)(
                    handle(residual), x, w, bias.place(), padding, 2, stride, 2, dilation, 2, groups,
                    c"add".as_ptr(), &raw mut alpha, word, scalars, count, algorithm, &raw mut out,
                )
            }
        })
    });
    taken("convolution", status.unwrap_or(1), out, &[input, weight])
}
