//! Element types.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Element type of a tensor.
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
    /// A finite value below any feature or score, for masked positions: its exponential is zero.
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

    /// The number in libtorch (`c10/core/ScalarType.h`).
    pub(crate) fn scalar_type(self) -> i8 {
        match self {
            Self::U8 => 0,
            Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 => 3,
            Self::I64 => 4,
            Self::F16 => 5,
            Self::F32 => 6,
            Self::F64 => 7,
            Self::Bool => 11,
            Self::BF16 => 15,
        }
    }

    /// Bytes per element.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Tensor};

    /// Each type by its number: bytes that are read as that type are what was written.
    #[test]
    fn numbers_of_types_are_those_of_libtorch() {
        use DType::{BF16, Bool, F16, F32, F64, I8, I16, I32, I64, U8};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("types.safetensors");
        let types = [F32, F64, F16, BF16, I64, I32, I16, I8, U8, Bool];
        let ones = types.map(|t| (format!("{t:?}"), Tensor::ones(&[8], t, Device::Cpu).unwrap()));
        crate::checkpoint::save(&path, &ones, &[]).unwrap();
        let checkpoint = crate::Checkpoint::open(&path).unwrap();
        for dtype in types {
            let view = checkpoint.view(&format!("{dtype:?}")).unwrap();
            assert_eq!((view.dtype().unwrap(), view.to_vec::<f64>().unwrap()), (dtype, vec![1.0; 8]));
        }
    }
}
