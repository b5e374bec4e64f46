//! Embeds video files: `cargo run --release -p mm-repr --example video -- MCG-NJU/videomae-base clip.mp4`.

use mm_core::Source;
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "MCG-NJU/videomae-base".into());
    let videos: Vec<Source> = arguments.map(|file| Source::Path(file.into())).collect();
    let model = Pretrained::load(&locate(model.as_ref(), Path::new(".")))?;
    println!("embeddings: {:?}", model.encode(&videos)?);
    Ok(())
}
