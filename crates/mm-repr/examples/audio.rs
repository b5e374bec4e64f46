//! Embeds audio files and prints the features of each:
//! `cargo run --release -p mm-repr --example audio -- facebook/wav2vec2-base a.wav`.

use mm_core::{Modality, Source};
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().unwrap_or_else(|| "facebook/wav2vec2-base".into());
    let files: Vec<Source> = arguments.map(|file| Source::Path(file.into())).collect();
    let model = Pretrained::load(&locate(model.as_ref(), Path::new(".")))?;
    println!("embeddings: {:?}", model.embed(&Modality::AUDIO, &files, None)?);
    for file in &files {
        println!("features of {file:?}: {:?}", model.features(&Modality::AUDIO, file)?);
    }
    Ok(())
}
