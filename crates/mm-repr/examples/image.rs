//! Pictures become vectors and classes: `cargo run --release -p mm-repr --example image -- efficientnet-lite0 photo.jpg`.

use mm_core::{Modality, Source};
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "efficientnet-lite0".into());
    let pictures: Vec<Source> = arguments.map(|file| Source::Path(file.into())).collect();
    let model = Pretrained::load(&locate(folder.as_ref(), Path::new(".")))?;
    println!("vectors: {:?}", model.encode(&pictures)?);
    let classes = model.logits(&Modality::IMAGE, &pictures)?.argmax(-1)?.to_vec::<i64>()?;
    println!("classes: {:?}", classes.iter().map(|c| &model.labels[*c as usize]).collect::<Vec<_>>());
    Ok(())
}
