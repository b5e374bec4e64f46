//! mm's part of `peers.py` for encoders: items per second, the median after a warm-up run.
//!
//! - `forward FOLDER image|text BATCH DTYPE`: the forward pass of images of 224×224 or texts of 48 tokens
//! - `forward FOLDER files MANIFEST DTYPE`: the embeddings of the files (or texts) of a manifest
//! - `forward - matmul SIZE DTYPE`: products of square matrices, in GFLOP/s
//!
//! The environment variables `DEVICE` (cpu, cuda, …) and `THREADS` set the device and the number of threads.

use mm_core::{DType, Device, Input, Modality, Source, Tensor, no_grad};
use mm_data::{Manifest, ManifestConfig};
use mm_repr::{LoadOptions, Pretrained};
use std::path::Path;

mod measure;
use measure::measure;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    mm_core::retain_freed_memory();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, kind, input, dtype] = arguments.as_slice() else {
        return Err("usage: forward FOLDER image|text|files|matmul BATCH|MANIFEST|SIZE DTYPE".into());
    };
    mm_core::set_num_threads(std::env::var("THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2));
    let device: Device = std::env::var("DEVICE").map_or(Ok(Device::Cpu), |d| d.parse())?;
    let dtype: DType = dtype.parse()?;
    if kind == "matmul" {
        let size: i64 = input.parse()?;
        let a = Tensor::randn(&[size, size], dtype, device)?;
        let rate = measure(5, || (0..20).try_for_each(|_| a.matmul(&a).map(drop)))?;
        println!("{:.1}", rate * 20.0 * 2.0 * (size as f64).powi(3) / 1e9);
        return Ok(());
    }
    let model = Pretrained::load_with(Path::new(folder), LoadOptions { dtype, device, ..LoadOptions::default() })?;
    if kind == "files" {
        let config = ManifestConfig { manifest: input.into(), ..ManifestConfig::default() };
        let manifest = Manifest::open(&config, Path::new("."))?;
        let modality =
            model.modalities().into_iter().find(|m| manifest.modalities().contains(m)).ok_or("no modality")?;
        let values = manifest.rows.iter().filter_map(|r| r.values.get(&modality)).flatten();
        let sources: Vec<Source> = values.cloned().collect();
        let rate = measure(3, || model.embed(&modality, &sources, None).map(drop))?;
        println!("{:.2}", rate * sources.len() as f64);
        return Ok(());
    }
    let batch: i64 = input.parse()?;
    let (modality, values) = if kind == "image" {
        (Modality::IMAGE, Tensor::randn(&[batch, 3, 224, 224], dtype, device)?)
    } else {
        let ids: Vec<i64> = (0..batch * 48).map(|i| 1000 + i * 7919 % 19000).collect();
        (Modality::TEXT, Tensor::from_vec(&ids, &[batch, 48])?.to_device(device)?)
    };
    // Texts of equal length have no mask, as in the loader's batches.
    let batch_input = Input { values, mask: None };
    let tower = model.tower(&modality)?;
    let forward = || match tower.encoder.logits(&batch_input)? {
        Some(logits) => Ok(logits),
        None => tower.encoder.embed(&batch_input, false),
    };
    // A GPU runs asynchronously: many passes, then one result is copied.
    let times = if device == Device::Cpu { 1 } else { 20 };
    let rate = measure(7, || {
        no_grad(|| {
            for _ in 1..times {
                forward()?;
            }
            forward()?.to_device(Device::Cpu).map(drop)
        })
    })?;
    println!("{:.2}", rate * (batch * times) as f64);
    Ok(())
}
