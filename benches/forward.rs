//! A checkpoint's own work, for `peers.py`: items a second, the median of the turns after one that does not count.
//!
//! - `forward FOLDER image|text BATCH DTYPE`: the forward pass alone, pictures of 224×224, texts of 48 tokens
//! - `forward FOLDER files MANIFEST DTYPE`: from the files (or texts) of a manifest to vectors
//! - `forward - matmul SIZE DTYPE`: products of square matrices, thousand millions of operations a second
//!
//! `DEVICE` (cpu, cuda, …) and `THREADS` are read from the environment.

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
    let [folder, kind, what, dtype] = arguments.as_slice() else {
        return Err("usage: forward FOLDER image|text|files|matmul BATCH|MANIFEST|SIZE DTYPE".into());
    };
    mm_core::set_num_threads(std::env::var("THREADS").ok().and_then(|t| t.parse().ok()).unwrap_or(2));
    let device: Device = std::env::var("DEVICE").map_or(Ok(Device::Cpu), |d| d.parse())?;
    let dtype: DType = dtype.parse()?;
    if kind == "matmul" {
        let size: i64 = what.parse()?;
        let a = Tensor::randn(&[size, size], dtype, device)?;
        let rate = measure(5, || (0..20).try_for_each(|_| a.matmul(&a).map(drop)))?;
        println!("{:.1}", rate * 20.0 * 2.0 * (size as f64).powi(3) / 1e9);
        return Ok(());
    }
    let model = Pretrained::load_with(Path::new(folder), LoadOptions { dtype, device, ..LoadOptions::default() })?;
    if kind == "files" {
        let config = ManifestConfig { manifest: what.into(), ..ManifestConfig::default() };
        let manifest = Manifest::open(&config, Path::new("."))?;
        let modality =
            model.modalities().into_iter().find(|m| manifest.modalities().contains(m)).ok_or("no modality")?;
        let values = manifest.rows.iter().filter_map(|r| r.values.get(&modality)).flatten();
        let sources: Vec<Source> = values.cloned().collect();
        let rate = measure(3, || model.embed(&modality, &sources, None).map(drop))?;
        println!("{:.2}", rate * sources.len() as f64);
        return Ok(());
    }
    let batch: i64 = what.parse()?;
    let (modality, values) = if kind == "image" {
        (Modality::IMAGE, Tensor::randn(&[batch, 3, 224, 224], dtype, device)?)
    } else {
        let ids: Vec<i64> = (0..batch * 48).map(|i| 1000 + i * 7919 % 19000).collect();
        (Modality::TEXT, Tensor::from_vec(&ids, &[batch, 48])?.to_device(device)?)
    };
    // Texts of one length have no mask, as the loader makes them.
    let input = Input { values, mask: None };
    let tower = model.tower(&modality)?;
    let forward = || match tower.encoder.logits(&input)? {
        Some(logits) => Ok(logits),
        None => tower.encoder.embed(&input, false),
    };
    // A GPU works on while the program goes on: many passes, then one result is read.
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
