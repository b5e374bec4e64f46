//! Canonical correlation analysis of images and captions: `cargo run --release -p mm-align --example cca`

use mm_align::{correlation::cca, diagnose};
use mm_core::{Checkpoint, DType, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stamps.safetensors"))?;
    let load = |name: &str| -> mm_core::Result<Tensor> { data.get(name)?.to_dtype(DType::F64) };
    let (images, captions) = (load("images")?, load("captions")?); // [stamps, 64] each, paired by row
    let (train, rows) = (images.size(0)? * 4 / 5, images.size(0)?);
    let (head, tail) = (|x: &Tensor| x.narrow(0, 0, train), |x: &Tensor| x.narrow(0, train, rows - train));
    let fit = cca(&head(&images)?, &head(&captions)?, None, [1.0; 2])?.scale_by_values(1.0)?;
    println!("{train} pairs; the largest correlations: {:.2?}", &fit.values.to_vec::<f64>()?[..5]);
    let a = fit.project(0, &tail(&images)?)?.normalize()?;
    let b = fit.project(1, &tail(&captions)?)?.normalize()?;
    let ranks = diagnose::ranks(&a.matmul(&b.transpose(0, 1)?)?)?;
    let recall = diagnose::recall_confidence_interval(&ranks, 10, 0);
    println!("recall at 10 of a held-out image's caption among {}: {recall:.3?}", rows - train);
    Ok(())
}
