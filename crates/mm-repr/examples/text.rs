//! Texts become vectors: `cargo run --release -p mm-repr --example text -- all-MiniLM-L6-v2 "a dog" "a puppy" "tax law"`.

use mm_core::{Source, Tensor};
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "all-MiniLM-L6-v2".into());
    let texts: Vec<Source> = arguments.map(Source::Text).collect();
    let vectors: Tensor = Pretrained::load(&locate(folder.as_ref(), Path::new(".")))?.encode(&texts)?;
    let unit = vectors.normalize()?;
    println!("{vectors:?}; cosines of each with each: {:.3?}", unit.matmul(&unit.transpose(0, 1)?)?.to_vec::<f32>()?);
    Ok(())
}
