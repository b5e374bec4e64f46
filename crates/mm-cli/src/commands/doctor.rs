//! `mm doctor`: what this program found on this machine. (`cargo xtask doctor` checks what it is built with.)

use crate::{context::Context, output};
use anyhow::Result;
use serde_json::json;

/// Show what mm found on this machine: libtorch, threads, GPUs, ffmpeg, cache, encoders
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mm doctor --json")]
pub(crate) struct Arguments {}

pub(crate) fn run(_: &Arguments, context: &Context) -> Result<()> {
    let (ffmpeg, ffmpeg_version) = (mm_data::decode::ffmpeg(), mm_data::decode::ffmpeg_version());
    let encoders: Vec<String> = context.registry.names().map(ToOwned::to_owned).collect();
    // A small product shows that libtorch not only loads but computes.
    let ones = mm_core::Tensor::ones(&[2, 2], mm_core::DType::F32, context.device()?)?;
    let computes = ones.matmul(&ones)?.sum()?.to_f64()? > 7.9;
    let found = json!({
        "mm": env!("CARGO_PKG_VERSION"),
        "libtorch_computes": computes,
        "device": context.device()?.to_string(),
        "gpus": mm_core::Device::cuda_device_count(),
        "threads": mm_core::num_threads(),
        "ffmpeg": ffmpeg.as_ref().ok(),
        "ffmpeg_version": ffmpeg_version.as_ref().ok(),
        "cache_dir": mm_core::cache_dir(),
        "encoders": encoders,
        "pretrained_families": mm_repr::families(),
    });
    if context.json {
        output::line(found);
        return Ok(());
    }
    for (name, value) in found.as_object().into_iter().flatten() {
        output::line(format!("{name:20} {}", value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)));
    }
    // Without a program, there is no version either.
    if let Err(error) = ffmpeg_version {
        output::line(format!("{:20} {error}", ""));
    }
    Ok(())
}
