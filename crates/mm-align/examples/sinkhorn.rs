//! Captions that lost their pictures are brought back to them all at once by optimal transport, and one by one by the nearest:
//! `cargo run --release -p mm-align --example sinkhorn`

use mm_align::{
    correlation::cca,
    transport::{Sinkhorn, sinkhorn},
};
use mm_core::{Checkpoint, DType, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stamps.safetensors"))?;
    let read = |name: &str| -> mm_core::Result<Tensor> { data.get(name)?.to_dtype(DType::F64) };
    let (pictures, captions) = (read("pictures")?, read("captions")?);
    let (known, lost) = (pictures.size(0)? - 100, 100);
    let fit = cca(&pictures.narrow(0, 0, known)?, &captions.narrow(0, 0, known)?, None, [1.0; 2])?.weighted(1.0)?;
    let seen = fit.project(0, &pictures.narrow(0, known, lost)?)?.normalize()?;
    let told = fit.project(1, &captions.narrow(0, known, lost)?)?.normalize()?;
    let cost = seen.matmul(&told.transpose(0, 1)?)?.neg()?.add_scalar(1.0)?; // one less the cosine
    let plan = sinkhorn(&cost, None, None, Sinkhorn { entropy: 0.05, ..Sinkhorn::default() })?;
    let right = |best: &Tensor| -> mm_core::Result<usize> {
        Ok(best.to_vec::<i64>()?.iter().enumerate().filter(|(row, found)| *row as i64 == **found).count())
    };
    println!(
        "{lost} captions brought back: {} by the nearest, {} by transport",
        right(&cost.neg()?.argmax(1)?)?,
        right(&plan.plan.argmax(1)?)?
    );
    println!("{} steps, {:.1e} off in the sums", plan.iterations, plan.error);
    Ok(())
}
