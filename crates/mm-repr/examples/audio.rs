//! Sounds become vectors, and a feature for each position: `cargo run --release -p mm-repr --example audio -- facebook/wav2vec2-base a.wav`.

use mm_core::{Modality, Source};
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "facebook/wav2vec2-base".into());
    let sounds: Vec<Source> = arguments.map(|file| Source::Path(file.into())).collect();
    let model = Pretrained::load(&locate(folder.as_ref(), Path::new(".")))?;
    println!("vectors: {:?}", model.embed(&Modality::AUDIO, &sounds, None)?);
    for sound in &sounds {
        println!("features of {sound:?}: {:?}", model.features(&Modality::AUDIO, sound)?);
    }
    Ok(())
}
