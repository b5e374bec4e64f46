//! Devices.

use crate::{DType, Error, Result};
use std::{fmt, str::FromStr};

/// Where a tensor is stored. Parsed from `cpu`, `cuda`, `cuda:N` or `auto` (the first GPU if there is one).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// The CPU.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its index.
    Cuda(usize),
}

impl Device {
    pub(crate) fn tch(self) -> tch::Device {
        match self {
            Self::Cpu => tch::Device::Cpu,
            Self::Cuda(n) => tch::Device::Cuda(n),
        }
    }

    pub(crate) fn from_tch(device: tch::Device) -> Self {
        match device {
            tch::Device::Cuda(n) => Self::Cuda(n),
            _ => Self::Cpu,
        }
    }

    /// The fastest element type that is precise enough for inference: bfloat16 where the hardware supports it.
    pub fn preferred_dtype(self) -> DType {
        #[cfg(target_arch = "x86_64")]
        let supported = std::arch::is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        let supported = false;
        if supported || matches!(self, Self::Cuda(_)) { DType::BF16 } else { DType::F32 }
    }

    /// Number of GPUs that libtorch can use here.
    pub fn cuda_device_count() -> usize {
        load_cuda();
        usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
    }
}

/// Loads libtorch's CUDA library. A program that was linked against a libtorch without CUDA, or by a linker that drops
/// unreferenced libraries, does not load it by itself. It must be loaded before libtorch is first asked about GPUs,
/// since it caches the answer. Without a driver, nothing is loaded.
fn load_cuda() {
    #[cfg(target_os = "linux")]
    {
        static LOADED: std::sync::Once = std::sync::Once::new();
        LOADED.call_once(|| {
            // SAFETY: these libraries support being loaded this way and stay loaded until the process ends.
            unsafe {
                if !libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY).is_null() {
                    libc::dlopen(c"libtorch_cuda.so".as_ptr(), libc::RTLD_LAZY | libc::RTLD_GLOBAL);
                }
            }
        });
    }
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text == "cpu" {
            return Ok(Self::Cpu);
        }
        let gpus = Self::cuda_device_count();
        let index = match text {
            "auto" => return Ok(if gpus > 0 { Self::Cuda(0) } else { Self::Cpu }),
            "cuda" => 0,
            other => other.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or_else(|| Error::Device {
                device: other.into(),
                reason: "unknown device; use cpu, cuda, cuda:N or auto".into(),
            })?,
        };
        if index < gpus {
            return Ok(Self::Cuda(index));
        }
        Err(Error::Device {
            device: text.into(),
            reason: format!(
                "libtorch sees {gpus} GPUs; use --device cpu, or run `cargo xtask setup --cuda` on a machine that has one"
            ),
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}
