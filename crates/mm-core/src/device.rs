//! Where tensors live and how their numbers are stored.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// A place that tensors live in: `cpu`, `cuda:N`, or `auto` (the first GPU if there is one) when parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number.
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

    /// The numbers that it multiplies fastest at a precision that inference stands: bfloat16 where there is hardware for it.
    pub fn preferred_dtype(self) -> DType {
        #[cfg(target_arch = "x86_64")]
        let here = std::arch::is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        let here = false;
        if here || matches!(self, Self::Cuda(_)) { DType::BF16 } else { DType::F32 }
    }

    /// Number of GPUs that libtorch can use here.
    pub fn cuda_device_count() -> usize {
        load_cuda();
        usize::try_from(tch::Cuda::device_count()).unwrap_or(0)
    }
}

/// A program that was linked against a libtorch without CUDA, or by a linker that drops what no symbol asks for, does not load libtorch's
/// CUDA part by itself: it is looked for where the program's libtorch is, once, and before anything asks libtorch about GPUs (which
/// remembers its first answer). Without a driver nothing is loaded.
fn load_cuda() {
    #[cfg(target_os = "linux")]
    {
        static LOADED: std::sync::Once = std::sync::Once::new();
        LOADED.call_once(|| {
            // SAFETY: these libraries are made to be loaded so; they stay until the process ends.
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
        let number = match text {
            "auto" => return Ok(if gpus > 0 { Self::Cuda(0) } else { Self::Cpu }),
            "cuda" => 0,
            other => other.strip_prefix("cuda:").and_then(|n| n.parse().ok()).ok_or_else(|| Error::Device {
                device: other.into(),
                reason: "not a device; use cpu, cuda, cuda:N or auto".into(),
            })?,
        };
        if number < gpus {
            return Ok(Self::Cuda(number));
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

/// How one number of a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum DType {
    #[default]
    F32,
    F64,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl DType {
    /// A number that is lower than any feature or score, and still one: its exponential is zero.
    pub fn mask_value(self) -> f64 {
        if self == Self::F16 { -6e4 } else { -1e30 }
    }

    pub(crate) fn tch(self) -> tch::Kind {
        match self {
            Self::F32 => tch::Kind::Float,
            Self::F64 => tch::Kind::Double,
            Self::F16 => tch::Kind::Half,
            Self::BF16 => tch::Kind::BFloat16,
            Self::I64 => tch::Kind::Int64,
            Self::I32 => tch::Kind::Int,
            Self::I16 => tch::Kind::Int16,
            Self::I8 => tch::Kind::Int8,
            Self::U8 => tch::Kind::Uint8,
            Self::Bool => tch::Kind::Bool,
        }
    }

    pub(crate) fn from_tch(kind: tch::Kind) -> Option<Self> {
        Some(match kind {
            tch::Kind::Float => Self::F32,
            tch::Kind::Double => Self::F64,
            tch::Kind::Half => Self::F16,
            tch::Kind::BFloat16 => Self::BF16,
            tch::Kind::Int64 => Self::I64,
            tch::Kind::Int => Self::I32,
            tch::Kind::Int16 => Self::I16,
            tch::Kind::Int8 => Self::I8,
            tch::Kind::Uint8 => Self::U8,
            tch::Kind::Bool => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    /// Whether it is a floating-point type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64 | Self::F16 | Self::BF16)
    }
}

impl FromStr for DType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text {
            "f32" | "float32" => Self::F32,
            "f64" | "float64" => Self::F64,
            "f16" | "float16" => Self::F16,
            "bf16" | "bfloat16" => Self::BF16,
            "i64" | "int64" => Self::I64,
            other => return Err(Error::unknown("dtype", other, ["f32", "f64", "f16", "bf16", "i64"])),
        })
    }
}

/// Tells glibc to keep freed memory instead of handing it back to the system after each large tensor: without it every
/// activation is paged in again (+18 % images a second on ResNet-50). Call once at the start of a program.
pub fn retain_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt only sets two thresholds of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 512 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 512 << 20);
        // Batches are made in worker threads and freed in another: with a heap for each thread (glibc's way) every heap would keep
        // its own largest batch.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Sets the number of threads that libtorch uses within one operation (at least one).
pub fn set_num_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(1));
}

/// Number of threads that libtorch uses within one operation.
pub fn num_threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}

/// Where mm keeps what can be made or fetched again: `$XDG_CACHE_HOME/mm`, else `~/.cache/mm`.
pub fn cache_dir() -> std::path::PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(std::path::PathBuf::from);
    let base =
        from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|h| h.join(".cache"))).unwrap_or_else(std::env::temp_dir);
    base.join("mm")
}
