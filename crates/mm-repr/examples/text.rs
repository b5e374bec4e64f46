//! Embeds texts and prints their cosine similarities:
//! `cargo run --release -p mm-repr --example text -- all-MiniLM-L6-v2 "a dog" "a puppy" "tax law"`.

use mm_core::{Source, Tensor};
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "all-MiniLM-L6-v2".into());
    let texts: Vec<Source> = arguments.map(Source::Text).collect();
    let embeddings: Tensor = Pretrained::load(&locate(model.as_ref(), Path::new(".")))?.encode(&texts)?;
    let unit = embeddings.normalize()?;
    let similarities = unit.matmul(&unit.transpose(0, 1)?)?.to_vec::<f32>()?;
    println!("{embeddings:?}; cosine similarities: {similarities:.3?}");
    Ok(())
}
