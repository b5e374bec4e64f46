//! `--dtype` and `--transparency`: the floating-point type that a pretrained model computes in, and what it sees of
//! transparent images.

use crate::{context::Context, exit::usage};
use anyhow::Result;
use mm_core::DType;
use mm_data::decode::Transparency;
use mm_repr::LoadOptions;

/// The type of a pretrained model's weights and activations.
#[derive(clap::Args, Clone, Debug, serde::Serialize)]
pub(crate) struct DtypeArgs {
    /// Type to compute in: f32, bf16, f16, f64, or auto (bf16 where the device computes it faster).
    #[arg(long, value_name = "DTYPE", default_value = "f32", help_heading = "Model options")]
    dtype: String,

    /// Transparent pixels of images: ignore (the alpha channel is dropped, as transformers, timm and open_clip do) or
    /// blend (with white).
    #[arg(long, value_name = "MODE", default_value = "ignore", help_heading = "Model options")]
    transparency: String,
}

impl DtypeArgs {
    /// Load options for the requested device and type.
    pub(crate) fn load_options(&self, context: &Context) -> Result<LoadOptions> {
        let device = context.device()?;
        let transparency = match self.transparency.as_str() {
            "ignore" => Some(Transparency::Ignore),
            "blend" => Some(Transparency::Blend),
            other => usage!("--transparency: found {other}, expected ignore or blend"),
        };
        let dtype = if self.dtype == "auto" { Some(device.preferred_dtype()) } else { self.dtype.parse().ok() };
        match dtype {
            Some(dtype @ (DType::F32 | DType::BF16 | DType::F16 | DType::F64)) => {
                Ok(LoadOptions { device, dtype, transparency, ..LoadOptions::default() })
            }
            _ => usage!("--dtype: found {}, expected f32, bf16, f16, f64 or auto", self.dtype),
        }
    }
}
