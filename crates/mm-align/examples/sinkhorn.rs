//! Shuffled captions are matched to their images, all at once by optimal transport and one by one by nearest neighbor:
//! `cargo run --release -p mm-align --example sinkhorn`

use mm_align::{
    correlation::cca,
    transport::{Masses, SinkhornConfig, sinkhorn},
};
use mm_core::{Checkpoint, DType, Tensor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let data = Checkpoint::open(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/stamps.safetensors"))?;
    let load = |name: &str| -> mm_core::Result<Tensor> { data.get(name)?.to_dtype(DType::F64) };
    let (images, captions) = (load("images")?, load("captions")?);
    let (train, test) = (images.size(0)? - 100, 100);
    let fit = cca(&images.narrow(0, 0, train)?, &captions.narrow(0, 0, train)?, None, [1.0; 2])?;
    let fit = fit.scale_by_values(1.0)?;
    let a = fit.project(0, &images.narrow(0, train, test)?)?.normalize()?;
    let b = fit.project(1, &captions.narrow(0, train, test)?)?.normalize()?;
    let cost = a.matmul(&b.transpose(0, 1)?)?.neg()?.add_scalar(1.0)?; // cosine distance
    let plan = sinkhorn(&cost, Masses::default(), SinkhornConfig { epsilon: 0.05, ..SinkhornConfig::default() })?;
    let correct = |best: &Tensor| -> mm_core::Result<usize> {
        Ok(best.to_vec::<i64>()?.iter().enumerate().filter(|(row, found)| *row as i64 == **found).count())
    };
    println!(
        "of {test} captions, {} are matched by nearest neighbor, {} by transport",
        correct(&cost.neg()?.argmax(1)?)?,
        correct(&plan.plan.argmax(1)?)?
    );
    println!("{} iterations, marginal error {:.1e}", plan.iterations, plan.marginal_error);
    Ok(())
}
