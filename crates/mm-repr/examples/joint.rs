//! Which text fits a picture: `cargo run --release -p mm-repr --example joint -- openai/clip-vit-base-patch32 photo.jpg "a dog" "a cat"`.

use mm_core::{Modality, Source};
use mm_repr::{Pretrained, Result, locate};
use std::path::Path;

fn main() -> Result<()> {
    mm_core::retain_freed_memory();
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "openai/clip-vit-base-patch32".into());
    let picture = Source::Path(arguments.next().unwrap_or_default().into());
    let texts: Vec<Source> = arguments.map(Source::Text).collect();
    let model = Pretrained::load(&locate(folder.as_ref(), Path::new(".")))?;
    let (picture, texts) =
        (model.embed(&Modality::IMAGE, &[picture], None)?, model.embed(&Modality::TEXT, &texts, None)?);
    let scale = model.contrastive_head.map_or(1.0, |joint| joint.scale);
    let shares = picture.matmul(&texts.transpose(0, 1)?)?.mul_scalar(scale)?.softmax(-1)?;
    println!("{:.3?}", shares.to_vec::<f32>()?);
    Ok(())
}
