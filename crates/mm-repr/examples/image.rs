//! Embeds and classifies image files: `cargo run --release -p mm-repr --example image -- efficientnet-lite0 photo.jpg`.

use mm_core::{Modality, Source};
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "efficientnet-lite0".into());
    let images: Vec<Source> = arguments.map(|file| Source::Path(file.into())).collect();
    let model = Pretrained::load(&locate(model.as_ref(), Path::new(".")))?;
    println!("embeddings: {:?}", model.encode(&images)?);
    let classes = model.logits(&Modality::IMAGE, &images)?.argmax(-1)?.to_vec::<i64>()?;
    println!("classes: {:?}", classes.iter().map(|c| &model.classes.labels[*c as usize]).collect::<Vec<_>>());
    Ok(())
}
