//! Canonical correlations of real pictures and captions: `cargo run --release -p mm-align --example cca`

use mm_align::{correlation::cca, diagnose};
use mm_core::{Checkpoint, DType, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stamps.safetensors"))?;
    let read = |name: &str| -> mm_core::Result<Tensor> { data.get(name)?.to_dtype(DType::F64) };
    let (pictures, captions) = (read("pictures")?, read("captions")?); // [stamps, 64], row for row
    let (known, rows) = (pictures.size(0)? * 4 / 5, pictures.size(0)?);
    let (first, rest) = (|x: &Tensor| x.narrow(0, 0, known), |x: &Tensor| x.narrow(0, known, rows - known));
    let fit = cca(&first(&pictures)?, &first(&captions)?, None, [1.0; 2])?.weighted(1.0)?;
    println!("{known} pairs; the largest correlations: {:.2?}", &fit.values.to_vec::<f64>()?[..5]);
    let seen = fit.project(0, &rest(&pictures)?)?.normalize()?;
    let told = fit.project(1, &rest(&captions)?)?.normalize()?;
    let recall = diagnose::recall_interval(&diagnose::ranks(&seen.matmul(&told.transpose(0, 1)?)?)?, 10, 0);
    println!("a held-out picture's caption is among the ten nearest of {}: {recall:.3?}", rows - known);
    Ok(())
}
